"""Tests that a script sees nothing of the recorder in its objects and warnings."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from support.recording import record

from distprof.clock import SystemClock
from distprof.records import Step

CASE = Path(__file__).parents[2] / "cases" / "observers_see_distprof.py"


@pytest.mark.parametrize("argument", ["counts", "fails"])
def test_no_method_of_a_batch_is_called_and_nobody_is_warned(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module is traced in every iteration: unwatched, counted and timed."""
    monkeypatch.setattr(sys, "argv", [str(CASE), argument])
    plain = runpy.run_path(str(CASE))
    recorded: dict[str, Any] = {}

    def job() -> None:
        recorded.update(runpy.run_path(str(CASE)))

    seen = record(tmp_path, job, warmup=2, count=True, timed=4, clock=SystemClock())
    assert (recorded["loads"], recorded["traced"], recorded["final"]) == ([], [], plain["final"])
    assert (plain["loads"], plain["traced"]) == ([], [])
    assert {(step.batch_size, step.samples) for step in seen.of(Step)} == {(4, 4)}


def test_a_subclass_of_tensor_sees_its_own_calls_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ``__torch_function__`` is not called a second time in a counted iteration, which would change results."""
    case = str(CASE.with_name("logging_tensor.py"))
    monkeypatch.setattr(sys, "argv", [case])
    runpy.run_path(case)
    plain = capsys.readouterr().out
    record(tmp_path, lambda: runpy.run_path(case) and None, warmup=2, count=True, timed=4, clock=SystemClock())
    assert capsys.readouterr().out == plain
    assert plain.count("Tensor [") == 12  # a vmapped function returns a plain tensor
