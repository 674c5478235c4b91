"""The timeline of one iteration: its spans add up, and waits end when the rank that is waited for comes."""

from __future__ import annotations

import pytest
from support.reports import report_of
from support.simulated.job import SimulatedJob
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.report import Report, StepTimeline
from distprof.merge.step_timeline import MOST_RANKS, shown_ranks

#: Rank 2 takes 30 ms more in the forward of layers.1, and 100 ms more in the third step.
PROGRAM = data_parallel(lambda rank, step: (rank == 2) * (30 + 100 * (step == 2)), noise=0)


def report() -> Report:
    return analyse(SimulatedJob(PROGRAM, 4, {"world": (0, 1, 2, 3)}).run())


def test_a_typical_iteration_of_all_ranks() -> None:
    found = report().timeline
    assert [one.rank for one in found.ranks] == [0, 1, 2, 3]
    assert (found.left_out, found.bound_ns) == (0, 0), "one host has one clock"
    assert found.iteration != 7, "the third step, which is long"
    for one in found.ranks:
        ends = [(span.name, span.start_ns, span.end_ns) for span in one.phases]
        assert (ends[0][:2], ends[-1][0]) == (("data", 0), "optimizer")
        assert [end for _, _, end in ends[:-1]] == [start for _, start, _ in ends[1:]], "one phase follows the other"
    slow = [span for span in found.ranks[2].modules if span.name == "layers.1"]
    assert [(span.start_ns, span.end_ns) for span in slow] == [(7 * MS, 42 * MS)]
    assert [span.name for span in found.ranks[0].modules][:5] == [
        "(outside modules)", "layers.0", "layers.1", "layers.2", "layers.2 (backward)",
    ]  # fmt: skip


def test_waits_end_when_the_last_member_comes() -> None:
    quick, slow = report().timeline.ranks[0], report().timeline.ranks[2]
    assert slow.waits == ()
    assert quick.waits and {span.name for span in quick.waits} == {"waits for rank 2: all_reduce (dp)"}
    assert sum(span.end_ns - span.start_ns for span in quick.waits) == pytest.approx(30 * MS)
    last = max(span.start_ns for span in slow.collectives)
    assert max(span.end_ns for span in quick.waits) == last
    for one in (quick, slow):
        assert len(one.collectives) == 3
    assert [span.end_ns - span.start_ns for span in slow.collectives] == [0, 0, 0], "nobody comes later"
    assert all(span.end_ns - span.start_ns == 30 * MS for span in quick.collectives)


def test_runs_without_a_timeline_have_none() -> None:
    assert report_of(dp=4).timeline == StepTimeline()


def test_of_many_ranks_the_named_ones_and_others_are_shown() -> None:
    shown = shown_ranks(list(range(2048)), [777, 5000])
    assert len(shown) == MOST_RANKS and shown == sorted(set(shown))
    assert {0, 777, 2047} <= set(shown) and 5000 not in shown
    assert shown_ranks([3, 1, 2], [2]) == [1, 2, 3]
