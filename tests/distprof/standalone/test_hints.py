"""Tests of the warnings about what a profile's totals lack, for callers who ask only for numbers."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distprof import FlopsProfiler, get_model_profile


class Eigenvalues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.matrix_exp(self.linear(x))
        return values


def profiled(model: nn.Module, called: nn.Module) -> FlopsProfiler:
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    called(torch.ones(8, 8))
    profiler.stop_profile()
    return profiler


def test_ops_that_are_in_no_total_are_named_once() -> None:
    model = Eigenvalues()
    profiler = profiled(model, model)
    with pytest.warns(UserWarning, match=r"not in the totals: aten\.linalg_matrix_exp \(1\)") as warned:
        assert profiler.get_total_macs() == 8 * 8 * 8
    assert [Path(one.filename) for one in warned] == [Path(__file__)]
    assert profiler.get_uncounted() == {"aten.linalg_matrix_exp": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profiler.get_total_flops()
    with pytest.warns(UserWarning, match="not in the totals"):
        get_model_profile(model, (8, 8), print_profile=False)


def test_a_printed_profile_says_it_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_model_profile(Eigenvalues(), (8, 8))
        get_model_profile(nn.Linear(8, 8), (8, 8), print_profile=False)
    assert "not counted: aten.linalg_matrix_exp" in capsys.readouterr().out


def test_a_model_that_was_never_called_has_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of the model ran."""
    model = nn.Linear(8, 8)
    profiler = profiled(model, copy.deepcopy(model))
    profiler.print_model_profile()
    text = capsys.readouterr().out
    why = "the model was not called while it was profiled: was a wrapper of it called, or a copy?"
    assert f"note:     {why}\n" in text and f"HFU: {why}" in " ".join(text.split())
    assert "fwd MACs per rank:" in text and "0 MACs" not in text
    again = profiled(model, copy.deepcopy(model))
    with pytest.warns(UserWarning, match="was a wrapper of it called, or a copy"):
        assert (again.get_total_macs(), again.get_total_steps(), again.get_total_params()) == (0, 0, 72)


@pytest.mark.stack("accelerate")
def test_an_offloaded_model_runs_where_its_hooks_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Its parameters are on the meta device before and after the call."""
    import accelerate

    model = accelerate.cpu_offload(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)), execution_device="cpu")
    assert get_model_profile(model, args=[torch.ones(4, 8)], as_string=False) == (2 * 1024 + 4 * 24, 1024, 2 * 128 + 24)
    text = capsys.readouterr().out
    assert "nothing ran" not in text and "on:       cpu" in text
    kept = get_model_profile(nn.Linear(8, 16, device="meta"), (4, 8), as_string=False)
    assert kept == (2 * 512 + 64, 512, 144)
    assert "nothing ran" in capsys.readouterr().out
