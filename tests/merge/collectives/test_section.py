"""The section on collectives says what simulated jobs did: counts, bytes, waits, and what some never entered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.report import Collectives
from distprof.records import CollectiveWindow

WORLD = {"world": (0, 1, 2, 3)}


def section_of(job: SimulatedJob) -> Collectives:
    return analyse(job.run()).collectives


def test_calls_bytes_and_waits_are_of_one_iteration_of_one_rank() -> None:
    found = section_of(SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2), noise=0), 4, WORLD))
    (row,) = found.rows
    assert (found.why_not, found.ranks, found.steps, found.source) == ("", 4, 10, "flight recorder")
    assert (row.kind, row.op, row.groups, row.members) == ("dp", "all_reduce", 1, 4)
    assert (row.calls, row.bytes) == (3.0, 12_000_000.0)
    assert row.wait_ns == pytest.approx(3 / 4 * 30 * MS), "three of four ranks wait 30 ms"
    assert row.own_ns == pytest.approx(3 / 4 * 1 * MS), "and work for 1 ms after that"
    assert row.share == pytest.approx(22.5 / 81, rel=0.01), "an iteration takes 51 ms, and 30 more"
    assert (row.transfer_ns, row.bytes_per_second) == (None, None)


def test_ranks_have_their_waits_and_lags() -> None:
    waits = section_of(SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2), noise=0), 4, WORLD)).waits
    assert [one.rank for one in waits] == [0, 1, 2, 3]
    assert [one.wait_ns for one in waits] == [30 * MS, 30 * MS, 0, 30 * MS]
    assert [one.lag_ns for one in waits] == [0, 0, 30 * MS, 0]
    assert waits[2].last == 30, "of three collectives in each of ten steps"


def test_a_collective_that_a_member_never_enters_is_reported() -> None:
    def program(rank: int, step: int) -> list[Item]:
        """In the fourth step rank 3 leaves out a barrier of its own group, and nobody waits for it."""
        items: list[Item] = [Turn(1, "forward"), Work(5)]
        if not (rank == 3 and step >= 4):
            items += [Enqueue("aside", "barrier")]
        return [*items, Turn(~0, "backward"), Work(5), Enqueue("world"), Wait(), Work(1)]

    found = section_of(SimulatedJob(program, 4, WORLD | {"aside": (0, 1, 2, 3)}))
    (one,) = found.unentered
    assert (one.group, one.op, one.number, one.entered, one.missing) == ("aside", "barrier", 4, (0, 1, 2), (3,))
    assert section_of(SimulatedJob(data_parallel(), 4, WORLD)).unentered == ()


def test_a_collective_at_the_end_of_the_window_is_not_taken_for_missing() -> None:
    def program(rank: int, step: int) -> list[Item]:
        items = list(data_parallel()(rank, step))
        return [*items, Enqueue("world", "barrier")] if step < 9 or rank else items

    assert section_of(SimulatedJob(program, 4, WORLD)).unentered == ()


def test_where_nothing_was_recorded_the_reason_is_given() -> None:
    found = section_of(
        SimulatedJob(data_parallel(), 4, WORLD, drop=lambda rank, one: isinstance(one, CollectiveWindow))
    )
    assert found.why_not == "collectives were not recorded"
    assert [row.wait_ns for row in found.rows] == [None]
    assert found.waits == ()


def test_a_device_that_times_its_collectives_tells_wait_and_transfer_without_clocks() -> None:
    job = SimulatedJob(data_parallel(noise=0), 4, WORLD)
    run = job.run()
    ranks = []
    for data in run.ranks:
        (key, window), = data.windows.items()  # fmt: skip
        assert window.collectives is not None
        entries = window.collectives.entries
        # Rank 0 comes last: its collectives take the 2 ms of the transfer, those of rank 3 5 ms.
        timed = replace(entries, duration_ns=np.full(len(entries.number), (2 + data.rank) * MS))
        collectives = replace(window.collectives, entries=timed)
        ranks.append(replace(data, windows={key: replace(window, collectives=collectives)}))
    (row,) = analyse(replace(run, ranks=tuple(ranks))).collectives.rows
    assert row.transfer_ns == 3 * 2 * MS
    assert row.wait_ns == pytest.approx(3 * (0 + 1 + 2 + 3) / 4 * MS)
    assert row.bytes_per_second == pytest.approx(12_000_000 / 0.006)
