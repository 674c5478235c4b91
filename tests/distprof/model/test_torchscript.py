"""TorchScript models are recorded, and their graphs contain nothing of distprof."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from support.recording import record

from distprof.clock import SystemClock
from distprof.records import Counts, Error, Parameters, Step

CASE = Path(__file__).parents[2] / "cases" / "traced_and_scripted.py"
FORWARD = 4 * (8 * 16 + 16 * 4)  # MACs of four samples
BACKWARD = 4 * (8 * 16 + 2 * 16 * 4)  # gradients of both weights, and of the second layer's input


@pytest.mark.parametrize("kind", ["scripted", "traced", "before", "fresh"])
def test_torchscript_models_are_recorded(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(CASE), kind])
    plain = runpy.run_path(str(CASE))
    recorded: dict[str, Any] = {}
    seen = record(
        tmp_path,
        lambda: recorded.update(runpy.run_path(str(CASE))),
        warmup=2,
        count=True,
        timed=3,
        clock=SystemClock(),
    )
    for what in ("losses", "graphs"):
        assert recorded[what] == plain[what]
    assert recorded["gradients"].digest() == plain["gradients"].digest()
    assert seen.of(Error) == []
    assert len(seen.of(Step)) == 3
    counts = seen.one(Counts)
    again = 2 if kind == "fresh" else 1  # a traced forward has run
    assert sum(counts.forward_macs) == FORWARD * again
    assert sum(counts.backward_macs) == BACKWARD
    first = seen.of(Parameters)[0]
    assert sum(one.local_numel for one in first.parameters) == 8 * 16 + 16 + 16 * 4 + 4
