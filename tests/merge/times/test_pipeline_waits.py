"""The bubble of a stage holds what it waits within forward and backward, where that is known."""

from __future__ import annotations

import pytest
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.records import NO_ROW, CollectiveWindow, Record


def program(rank: int, step: int) -> list[Item]:
    """Rank 0 computes 10 ms, then rank 1: 10 ms forward and 20 ms backward; rank 0 receives within its backward."""
    if rank == 0:
        items: list[Item] = [Turn(1, "forward"), Work(10), Enqueue("pp", "send", 1)]
        items += [Turn(~1, "backward"), Enqueue("pp", "recv", 1), Wait(), Work(20)]
        return [*items, Turn(NO_ROW, "optimizer"), Work(2), Enqueue("end", "barrier"), Wait()]
    items = [Turn(NO_ROW, "outside"), Enqueue("pp", "recv", 0), Wait(), Turn(1, "forward"), Work(10)]
    items += [Turn(~1, "backward"), Work(20), Enqueue("pp", "send", 0), Turn(NO_ROW, "outside")]
    return [*items, Enqueue("end", "barrier"), Wait(), Turn(NO_ROW, "optimizer"), Work(2)]


@pytest.mark.parametrize("blind", [False, True])
def test_waits_within_backward_are_part_of_the_bubble(blind: bool) -> None:
    def drop(rank: int, record: Record) -> bool:
        return blind and isinstance(record, CollectiveWindow)

    job = SimulatedJob(
        program, 2, {"pp": (0, 1), "end": (0, 1)}, sizes={"dp": 1, "pp": 2, "mp": 2}, drop=drop,
        coordinates=lambda rank: {"dp": 0, "pp": rank, "mp": rank},
    )  # fmt: skip
    first, second = analyse(job.run()).pipeline
    assert first.forward_ns == second.forward_ns == 10 * MS
    assert second.backward_ns == 20 * MS
    assert first.backward_ns == (50 if blind else 20) * MS, "30 ms of it are the wait for stage 1"


def posts_early(rank: int, step: int) -> list[Item]:
    """Rank 1 posts its receive, computes 10 ms, and waits; rank 0 always sends 6 ms after that receive was posted."""
    if rank == 0:
        items: list[Item] = [Turn(1, "forward"), Work(6), Enqueue("pp", "send", 1), Work(4)]
    else:
        items = [Turn(NO_ROW, "outside"), Enqueue("pp", "recv", 0), Turn(1, "forward"), Work(10)]
        items += [Turn(NO_ROW, "outside"), Wait()]
    items += [Turn(~1, "backward"), Work(20), Turn(NO_ROW, "outside"), Enqueue("end", "barrier"), Wait()]
    return [*items, Turn(NO_ROW, "optimizer"), Work(2)]


def test_computing_while_an_early_receive_is_pending_is_no_wait() -> None:
    job = SimulatedJob(
        posts_early, 2, {"pp": (0, 1), "end": (0, 1)}, sizes={"dp": 1, "pp": 2, "mp": 2},
        coordinates=lambda rank: {"dp": 0, "pp": rank, "mp": rank},
    )  # fmt: skip
    for row in analyse(job.run()).pipeline:
        assert (row.forward_ns, row.backward_ns) == (10 * MS, 20 * MS)
