"""The advice for short scripts: with the options that it names, the script has enough iterations."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.rank.plans import short_run_advice
from distprof.recorder.windows.capture_plan import StepKind, capture_plan
from distprof.records import Plan


@given(
    iterations=st.integers(1, 30),
    start=st.integers(0, 20),
    counted=st.integers(0, 1),
    timed=st.integers(0, 20),
    world=st.sampled_from([1, 4]),
)
def test_the_options_fit(iterations: int, start: int, counted: int, timed: int, world: int) -> None:
    planned = capture_plan(start, counted, timed, world)
    if planned.end == planned.start:
        return
    advice = short_run_advice(planned.record(), iterations)
    assert bool(advice) == (planned.end > iterations), "a script that is long enough needs no advice"
    found = re.search(r": add --warmup (\d+) --timed (\d+)( --no-count)?$", advice)
    if found:
        fitting = capture_plan(int(found[1]), counted * (not found[3]), int(found[2]), world)
        assert fitting.end <= iterations
        kinds = [fitting.kind(number) for number in range(iterations)]
        assert kinds.count(StepKind.TIMED) >= 1
    else:
        assert not advice


@pytest.mark.parametrize(
    ("iterations", "advice"),
    [
        (0, "0 iterations seen, 16 needed"),
        (1, "1 iteration seen, 16 needed: add --warmup 0 --timed 1 --no-count"),
        (2, "2 iterations seen, 16 needed: add --warmup 0 --timed 1"),
        (3, "3 iterations seen, 16 needed: add --warmup 1 --timed 1"),
        (8, "8 iterations seen, 16 needed: add --warmup 1 --timed 6"),
        (15, "15 iterations seen, 16 needed: add --warmup 1 --timed 10"),
        (16, ""),
    ],
)
def test_the_default_plan(iterations: int, advice: str) -> None:
    assert short_run_advice(Plan(start=5, counted=1, timed=10), iterations) == advice


def test_a_window_that_was_planned_later_has_no_options() -> None:
    assert short_run_advice(Plan(start=50, counted=1, timed=10, window=1), 55) == ""
