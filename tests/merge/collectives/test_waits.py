"""Waits are told from work: on simulated jobs in which both are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated.job import Enqueue, Item, Program, SimulatedJob, Turn, Wait, Work
from support.simulated.programs import data_parallel
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.analysis import Analysis, start_analysis
from distprof.merge.collectives.own_times import rank_waits, why_no_own_times
from distprof.merge.report import ONE_OF, SLOW, THROUGHOUT, RankVerdict
from distprof.merge.skew.verdict import rank_verdict
from distprof.records import NO_ROW, Collectives, CollectiveWindow, Timeline

WORLD = {"world": tuple(range(4))}


def analysis_of(job: SimulatedJob) -> Analysis:
    return start_analysis(job.run())


def verdict_of(job: SimulatedJob) -> RankVerdict:
    return rank_verdict(analysis_of(job))


def named(found: RankVerdict) -> list[tuple[int, str, str]]:
    return [(one.rank, one.subject, one.phase) for one in found.named]


def test_the_ranks_that_wait_for_a_slow_one_wait_as_long_as_it_is_late() -> None:
    analysis = analysis_of(SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2), noise=0), 4, WORLD))
    assert why_no_own_times(analysis) == ""
    waits = rank_waits(analysis)
    assert len(waits[2].wait_ns) == 0
    for rank in (0, 1, 3):
        assert waits[rank].wait_ns.tolist() == [30 * MS] * 10
        assert set(waits[rank].owner.tolist()) == {~0}, "in the last turn of backward, which has the wait"


def test_a_slow_rank_is_named_with_what_it_lost() -> None:
    found = verdict_of(SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2)), 4, WORLD))
    assert (found.finding, named(found)) == (SLOW, [(2, "layers.1", "forward")])
    assert found.named[0].excess_ns == pytest.approx(30 * MS, rel=0.05)


def test_of_two_ranks_the_slower_is_named_because_the_other_waits() -> None:
    job = SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 1)), 2, {"world": (0, 1)})
    found = verdict_of(job)
    assert (found.finding, named(found), found.named[0].cohort) == (SLOW, [(1, "layers.1", "forward")], 2)
    blind = SimulatedJob(job.program, 2, job.groups, drop=lambda rank, record: isinstance(record, CollectiveWindow))
    found = verdict_of(blind)
    assert (found.finding, sorted(one.rank for one in found.named)) == (ONE_OF, [0, 1])
    assert found.why_self_times == "collectives were not recorded"


def test_a_rank_that_leaves_its_long_waits_later_and_later_still_waits() -> None:
    """What follows the wait varies more than the gap: the later the rank leaves one, the later it begins the next."""

    def program(rank: int, step: int) -> list[Item]:
        forward, after = (5.0, 1.0 + step) if rank == 0 else (105.0, 1.0)
        return [
            *(Turn(1, "forward"), Work(forward)),
            *(Turn(~0, "backward"), Enqueue("world"), Wait(), Work(after)),
            *(Turn(NO_ROW, "optimizer"), Work(2)),
        ]

    found = verdict_of(SimulatedJob(program, 2, {"world": (0, 1)}))
    assert (found.finding, named(found)) == (SLOW, [(1, "layers.0", "forward")])


def test_of_two_ranks_of_which_one_waits_outside_of_modules_neither_is_named_where_waits_are_not_known() -> None:
    def program(rank: int, step: int) -> list[Item]:
        return [
            *(Turn(1, "forward"), Work(5 + 30 * rank), Turn(~1, "backward"), Work(5), Enqueue("world")),
            *(Turn(NO_ROW, "backward"), Wait(), Work(1 + rank), Turn(NO_ROW, "optimizer"), Work(2 - rank)),
        ]

    groups = {"world": (0, 1)}
    blind = SimulatedJob(program, 2, groups, drop=lambda rank, record: isinstance(record, CollectiveWindow))
    found = verdict_of(blind)
    assert (found.finding, named(found)) == (ONE_OF, [(1, "layers.0", "forward"), (0, "backward", "backward")])


def test_ranks_that_enqueue_nothing_wait_for_nobody() -> None:
    """Two ranks that never communicate: their collectives are recorded, and there are none."""

    def program(rank: int, step: int) -> list[Item]:
        return [Turn(0, "forward"), Work(5), Turn(~0, "backward"), Work(10 + rank)]

    run = SimulatedJob(program, 2, {"world": (0, 1)}).run()
    assert why_no_own_times(start_analysis(run)) == ""
    assert all(len(waits.wait_ns) == 0 for waits in rank_waits(start_analysis(run)).values())
    assert analyse(run).collectives.rows == ()


def in_small_groups(slow_ms: float) -> Program:
    """Pairs (0, 1), (2, 3), ... add up their results within layers.1; rank 1 is slow in layers.0."""

    def program(rank: int, step: int) -> list[Item]:
        random = np.random.default_rng((rank, step))
        pair = f"tp{rank // 2}"
        items: list[Item] = [Turn(1, "forward"), Work(5 + random.random() / 10 + slow_ms * (rank == 1))]
        items += [Turn(2, "forward"), Work(5), Enqueue(pair), Wait(), Work(1)]
        items += [Turn(~1, "backward"), Work(10), Enqueue("world"), Turn(~0, "backward"), Wait(), Work(1)]
        return [*items, Turn(NO_ROW, "optimizer"), Work(2)]

    return program


def pairs(world: int, slow_ms: float, **more: object) -> SimulatedJob:
    groups = {"world": tuple(range(world))} | {f"tp{n}": (2 * n, 2 * n + 1) for n in range(world // 2)}
    return SimulatedJob(
        in_small_groups(slow_ms), world, groups, sizes={"dp": world // 2, "tp": 2, "mp": 2},
        coordinates=lambda rank: {"dp": rank // 2, "tp": rank % 2, "mp": rank % 2}, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_rank_that_waits_in_a_small_group_is_not_blamed() -> None:
    found = verdict_of(pairs(8, 20))
    assert (found.finding, named(found)) == (SLOW, [(1, "layers.0", "forward")])
    blind = verdict_of(pairs(8, 20, drop=lambda rank, record: isinstance(record, Timeline)))
    assert (blind.finding, sorted(one.rank for one in blind.named)) == (ONE_OF, [0, 1])
    assert blind.why_self_times == "a step has no timeline"


def test_a_slow_module_that_waits_itself_is_seen() -> None:
    def program(rank: int, step: int) -> list[Item]:
        """Every layer waits for a collective of its own, as sharded parameters do; rank 3 is slow in layers.1."""
        items: list[Item] = []
        for layer in (1, 2, 3):
            items += [Turn(layer, "forward"), Enqueue("world", "all_gather"), Wait(), Work(5)]
            items += [Work(15)] if (rank, layer) == (3, 2) else []
        return [*items, Turn(~0, "backward"), Work(10), Enqueue("world"), Wait(), Work(1)]

    found = verdict_of(SimulatedJob(program, 4, WORLD))
    assert (found.finding, named(found)) == (SLOW, [(3, "layers.1", "forward")])
    assert found.named[0].excess_ns == pytest.approx(15 * MS)


def test_a_machine_that_is_slow_everywhere_is_seen_without_its_waits() -> None:
    def program(rank: int, step: int) -> list[Item]:
        items = data_parallel(noise=0)(rank, step)
        return [Work(item.ms * 1.3) if isinstance(item, Work) and rank == 2 else item for item in items]

    found = verdict_of(SimulatedJob(program, 4, WORLD))
    assert (found.finding, named(found)) == (SLOW, [(2, THROUGHOUT, THROUGHOUT)])
    assert found.named[0].excess_ns == pytest.approx(0.3 * 51 * MS)


def test_a_receive_waits_for_its_sender() -> None:
    def program(rank: int, step: int) -> list[Item]:
        """Ranks 0 to 2 are the first stage, 3 to 5 the second; rank 1 is slow."""
        random = np.random.default_rng((rank, step))
        work = Work(10 + random.random() / 10 + 8 * (rank == 1))
        if rank < 3:
            items: list[Item] = [Turn(1, "forward"), work, Enqueue("pp", "send", rank + 3), Turn(NO_ROW, "outside")]
            items += [Enqueue("pp", "recv", rank + 3), Wait(), Work(0.1), Turn(~1, "backward"), Work(20)]
        else:
            items = [Turn(NO_ROW, "outside"), Enqueue("pp", "recv", rank - 3), Wait(), Work(0.1)]
            items += [Turn(1, "forward"), work, Turn(~1, "backward"), Work(20), Enqueue("pp", "send", rank - 3)]
        stage = f"dp{rank // 3}"
        return [*items, Turn(NO_ROW, "outside"), Enqueue(stage), Wait(), Turn(NO_ROW, "optimizer"), Work(2)]

    groups = {"pp": tuple(range(6)), "dp0": (0, 1, 2), "dp1": (3, 4, 5)}
    job = SimulatedJob(
        program, 6, groups, sizes={"dp": 3, "pp": 2, "mp": 2},
        coordinates=lambda rank: {"dp": rank % 3, "pp": rank // 3, "mp": rank // 3},
    )  # fmt: skip
    found = verdict_of(job)
    assert (found.finding, named(found)) == (SLOW, [(1, "layers.0", "forward")])


def test_a_collective_that_nobody_waits_for_blocks_nothing() -> None:
    def program(rank: int, step: int) -> list[Item]:
        """An all_reduce is enqueued first and used last: between is work, though rank 0 enqueues late."""
        late = (20 + 4 * (step % 3)) * (rank == 0)
        items: list[Item] = [Turn(1, "forward"), Work(1 + late), Enqueue("world"), Work(5)]
        items += [Turn(2, "forward"), Work(40), Turn(3, "forward"), Work(40 - late)]
        return [*items, Turn(~0, "backward"), Wait(), Work(2)]

    analysis = analysis_of(SimulatedJob(program, 4, WORLD))
    assert all(len(waits.wait_ns) == 0 for waits in rank_waits(analysis).values())
    assert named(rank_verdict(analysis)) == [(0, "layers.0", "forward")]


@pytest.mark.parametrize("ranks", [[1], [0, 1, 2, 3]])
def test_where_ranks_did_not_record_collectives_self_times_are_compared_and_the_reason_is_given(
    ranks: list[int],
) -> None:
    def drop(rank: int, record: object) -> bool:
        return rank in ranks and isinstance(record, Collectives | CollectiveWindow)

    found = verdict_of(SimulatedJob(data_parallel(lambda rank, step: 30 * (rank == 2)), 4, WORLD, drop=drop))
    assert named(found) == [(2, "layers.1", "forward")]
    expected = "1 rank of 4: collectives were not recorded" if ranks == [1] else "collectives were not recorded"
    assert found.why_self_times == expected
