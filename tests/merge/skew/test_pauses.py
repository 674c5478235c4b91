"""Pauses: in most steps of a rank, in a single one, and again and again, on simulated jobs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest
from support.simulated.job import Item, Program, SimulatedJob, Turn, Work
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analysis import start_analysis
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import NOBODY_STANDS_OUT, PAUSES, RankVerdict
from distprof.merge.skew.verdict import rank_verdict
from distprof.records import NO_ROW, Pauses

WORLD = {"world": tuple(range(8))}
SLOW_PROGRAM = data_parallel(lambda rank, step: 30 * (rank == 2))


def verdict_of(run: LoadedRun) -> RankVerdict:
    return rank_verdict(start_analysis(run))


def with_pauses(run: LoadedRun, rank: int, steps: range, ms: float) -> LoadedRun:
    """Returns the run with garbage collections in some steps of a rank."""
    ranks = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        own = window.collectives
        assert own is not None
        if data.rank == rank:
            times = np.array([0], np.int64), np.array([ms * MS], np.int64)
            pauses = tuple(
                Pauses(own.iterations[step], "training", ("garbage collection, generation 2",), np.array([0]), *times)
                for step in steps
            )
            window = replace(window, collectives=replace(own, pauses=pauses))
        ranks.append(replace(data, windows={key: window}))
    return replace(run, ranks=tuple(ranks))


def test_pauses_in_most_steps_are_the_cause() -> None:
    run = SimulatedJob(SLOW_PROGRAM, 8, WORLD).run()
    found = verdict_of(with_pauses(run, 2, range(10), 25))
    assert (found.cause, found.evidence) == (PAUSES, "most of it is garbage collection, generation 2")
    assert verdict_of(with_pauses(run, 2, range(5), 25)).cause == "", "in half of the steps only"
    assert verdict_of(with_pauses(run, 2, range(10), 5)).cause == "", "a small part of what is lost"


def test_a_single_pause_names_the_moment_and_no_slow_rank() -> None:
    run = SimulatedJob(data_parallel(lambda rank, step: 80 * (rank == 2 and step == 4)), 8, WORLD).run()
    found = verdict_of(run)
    assert (found.finding, found.named, found.cause, found.group) == (NOBODY_STANDS_OUT, (), PAUSES, (2,))
    assert re.fullmatch(r"rank 2 lost (79|80)[.\d]* ms in iteration 9, in forward of layers\.1", found.evidence)
    assert verdict_of(with_pauses(run, 2, range(4, 5), 75)).evidence.endswith(": garbage collection, generation 2")


def paused(steps: Collection[int], busy: bool = True) -> Program:
    """Rank 2 loses 80 ms in the forward of layers.1 in some steps; on a busy machine rank 5 loses 70 ms of another."""

    def program(rank: int, step: int) -> list[Item]:
        items = list(data_parallel(lambda rank, step: 80 * (rank == 2 and step in steps))(rank, step))
        at = items.index(Turn(NO_ROW, "optimizer")) + 1
        return [*items[:at], Work(70 * (busy and rank == 5 and step == 6)), *items[at:]]

    return program


@pytest.mark.parametrize(("steps", "named"), [((3,), False), ((3, 8), True)])
def test_where_others_lose_time_as_well_a_pause_is_named_if_it_comes_again(steps: tuple[int, ...], named: bool) -> None:
    found = verdict_of(SimulatedJob(paused(steps), 8, WORLD).run())
    assert (found.finding, found.cause, found.group) == (NOBODY_STANDS_OUT, PAUSES * named, (2,) * named)
    again = r"rank 2 lost (79|80)[.\d]* ms in each of iterations 8, 13, in forward of layers\.1"
    assert re.fullmatch(again, found.evidence) or not named
    assert verdict_of(SimulatedJob(paused(steps, busy=False), 8, WORLD).run()).group == (2,)


def with_waits(run: LoadedRun, rank: int, step: int, ms: float) -> LoadedRun:
    """Returns the run with a wait for a processor in one step of a rank; the others did not wait."""
    ranks = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        waits_ns = np.zeros(window.steps)
        waits_ns[step] = ms * MS * (data.rank == rank)
        ranks.append(replace(data, windows={key: replace(window, processor_waits_ns=waits_ns)}))
    return replace(run, ranks=tuple(ranks))


def test_what_a_rank_waits_for_a_processor_is_no_pause() -> None:
    run = SimulatedJob(paused((3,)), 8, WORLD).run()
    found = verdict_of(with_waits(run, 5, 6, 70))
    assert (found.cause, found.group) == (PAUSES, (2,)), "what rank 5 lost is explained"
    assert re.fullmatch(r"rank 2 lost (79|80)[.\d]* ms in iteration 8, in forward of layers\.1", found.evidence)
    alone = SimulatedJob(paused((3,), busy=False), 8, WORLD).run()
    assert verdict_of(with_waits(alone, 2, 3, 78)).cause == ""


def test_a_pause_that_was_recorded_is_named_whatever_others_lose() -> None:
    run = SimulatedJob(paused((3,)), 8, WORLD).run()
    found = verdict_of(with_pauses(run, 2, range(3, 4), 75))
    assert (found.cause, found.group) == (PAUSES, (2,)) and found.evidence.endswith(
        ": garbage collection, generation 2"
    )
    assert verdict_of(with_pauses(run, 1, range(3, 4), 75)).cause == "", "that cost rank 1 nothing"
