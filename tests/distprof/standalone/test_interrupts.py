"""What comes from outside while a profile runs reaches the script."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distprof import FlopsProfiler


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["enter", "leave"])
def test_ctrl_c_in_a_profile_reaches_the_script(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"distprof.probes.counting.probe.CountingProbe.{method}", interrupted)
    model = nn.Linear(2, 2)
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    with pytest.raises(KeyboardInterrupt):
        model(torch.ones(1, 2))
    assert model(torch.ones(1, 2)).shape == (1, 2), "nothing of the profile is left"
    profiler.end_profile()
