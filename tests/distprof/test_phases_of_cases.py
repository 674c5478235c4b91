"""Scripts whose time went by the wrong name: what each phase takes at least, which the scripts know themselves."""

from __future__ import annotations

import runpy
from pathlib import Path
from statistics import median

import pytest
from support.recording import Seen, record

from distprof.clock import SystemClock
from distprof.records import TRAINING, Step

CASES = Path(__file__).parents[1] / "cases"
MS = 1_000_000


def run(folder: Path, case: str, **settings: int) -> Seen:
    return record(folder, lambda: runpy.run_path(str(CASES / f"{case}.py")), clock=SystemClock(), **settings)


@pytest.mark.parametrize(("case", "apart_ms"), [("between", 20), ("rollout", 19 * 2)])
def test_what_stands_between_forward_and_backward_is_a_phase_of_its_own(
    tmp_path: Path, case: str, apart_ms: float
) -> None:
    steps = [step for step in run(tmp_path, case, warmup=2, timed=9).of(Step) if step.mode == TRAINING]
    assert len(steps) == 9
    for step in steps:
        assert sum(step.phases_ns.values()) == step.duration_ns
        assert step.phases_ns["outside"] >= apart_ms * MS
    assert median(step.phases_ns["forward"] / step.phases_ns["outside"] for step in steps) < 0.5
