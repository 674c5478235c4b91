"""Why ranks are slow: found from samples, tokens and hosts, on simulated jobs with one cause each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import changed_report, report_of
from support.simulated.job import Enqueue, Item, Program, SimulatedJob, Turn, Wait, Work
from support.simulated.programs import data_parallel

from distprof.merge.analysis import start_analysis
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import (
    BUSY_PROCESSORS,
    DATA_LOADING,
    EXPERT_OVERLOAD,
    LONG_STAGE,
    MORE_WORK,
    NOBODY_STANDS_OUT,
    OPTIMIZER,
    SLOW,
    SLOW_DEVICE,
    SLOW_HOST,
    RankVerdict,
)
from distprof.merge.skew.verdict import rank_verdict
from distprof.records import NO_ROW, ExpertLoad, Record

WORLD = {"world": tuple(range(8))}
SLOW_PROGRAM = data_parallel(lambda rank, step: 30 * (rank == 2))


def verdict_of(run: LoadedRun) -> RankVerdict:
    return rank_verdict(start_analysis(run))


def test_more_samples_are_more_work() -> None:
    job = SimulatedJob(SLOW_PROGRAM, 8, WORLD, samples=lambda rank: 16 if rank == 2 else 8)
    found = verdict_of(job.run())
    assert (found.cause, found.evidence) == (MORE_WORK, "2.00 times the samples of the others")
    assert verdict_of(SimulatedJob(SLOW_PROGRAM, 8, WORLD).run()).cause == ""


def slow_throughout(rank: int, step: int) -> Sequence[Item]:
    """Rank 2 takes 31 ms longer: 1.6 times as long as the others for everything."""
    items = data_parallel()(rank, step)
    return [Work(1.6 * item.ms) if isinstance(item, Work) and rank == 2 else item for item in items]


def waiting_for_processors(program: Program, waits_ms: float | None) -> LoadedRun:
    """A run of which each rank waits 10 ms of an iteration for a processor, and rank 2 ``waits_ms`` longer."""
    run = SimulatedJob(program, 8, WORLD, hosts=lambda rank: f"node{rank // 4}").run()
    ranks = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        if waits_ms is not None:
            window = replace(window, processor_waits_ns=np.full(10, (10 + waits_ms * (data.rank == 2)) * 1e6))
        ranks.append(replace(data, windows={key: window}))
    return replace(run, ranks=tuple(ranks))


@pytest.mark.parametrize(("waits_ms", "cause"), [(22, BUSY_PROCESSORS), (5, SLOW_DEVICE), (None, SLOW_DEVICE)])
def test_a_slow_rank_may_wait_for_a_processor_as_well(waits_ms: float | None, cause: str) -> None:
    found = verdict_of(waiting_for_processors(slow_throughout, waits_ms))
    assert ([one.rank for one in found.named], found.cause) == ([2], cause)
    assert ("22 ms longer" in found.evidence) == (cause == BUSY_PROCESSORS)


def test_a_rank_whose_excess_is_waiting_for_a_processor_is_not_slow() -> None:
    """Its host has too few processors: the host is named, and what the rank would lose without that is not enough."""
    found = verdict_of(waiting_for_processors(slow_throughout, 28))
    assert (found.finding, found.named, found.cause, found.group) == (NOBODY_STANDS_OUT, (), BUSY_PROCESSORS, (2,))
    assert found.evidence.startswith("on host node0 a rank is ready to run while no processor is free for 10 ms")
    assert "rank 2 waits 28 ms longer than the others" in found.evidence


def test_a_rank_that_loses_time_in_one_module_has_only_a_part_of_its_waits_there() -> None:
    """Of 28 ms that rank 2 waits longer in an iteration, 12 are in a module that has 35 of its 81 ms."""
    found = verdict_of(waiting_for_processors(SLOW_PROGRAM, 28))
    assert ([one.rank for one in found.named], found.cause) == ([2], "")


def test_a_rank_with_more_work_may_wait_longer() -> None:
    run = waiting_for_processors(slow_throughout, 28)
    ranks = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        ranks.append(replace(data, windows={key: replace(window, samples=16 if data.rank == 2 else 8)}))
    found = verdict_of(replace(run, ranks=tuple(ranks)))
    assert ([one.rank for one in found.named], found.cause) == ([2], MORE_WORK)


def test_other_ranks_stay_named_beside_one_that_waits_for_a_processor() -> None:
    def program(rank: int, step: int) -> Sequence[Item]:
        return data_parallel(lambda rank, step: 60)(rank, step) if rank == 5 else slow_throughout(rank, step)

    assert [one.rank for one in verdict_of(waiting_for_processors(program, 28)).named] == [5]


@pytest.mark.parametrize(("phase", "cause"), [("data", DATA_LOADING), ("optimizer", OPTIMIZER)])
def test_phases_are_causes(phase: str, cause: str) -> None:
    def program(rank: int, step: int) -> list[Item]:
        items = list(data_parallel()(rank, step))
        at = items.index(Turn(NO_ROW, phase)) + 1
        return [*items[:at], Work(30 * (rank == 2)), *items[at:]]

    found = verdict_of(SimulatedJob(program, 8, WORLD).run())
    assert ([one.rank for one in found.named], found.cause) == ([2], cause)


def test_a_host_of_which_all_ranks_are_slow_is_named() -> None:
    program = data_parallel(lambda rank, step: 30 * (rank in (4, 5)))
    found = verdict_of(SimulatedJob(program, 8, WORLD, hosts=lambda rank: f"node{rank // 2}").run())
    assert (found.finding, sorted(one.rank for one in found.named)) == (SLOW, [4, 5])
    assert (found.cause, found.group) == (SLOW_HOST, (4, 5)) and "node2" in found.evidence
    assert verdict_of(SimulatedJob(program, 8, WORLD).run()).cause == "", "the job has one host only"


def stages(first_ms: float, second_ms: float) -> Program:
    """Ranks 0 to 3 are the first stage, 4 to 7 the second."""

    def program(rank: int, step: int) -> list[Item]:
        random = np.random.default_rng((rank, step))
        work = Work((second_ms if rank >= 4 else first_ms) + random.random())
        peer = rank - 4 if rank >= 4 else rank + 4
        if rank >= 4:
            items: list[Item] = [Turn(NO_ROW, "outside"), Enqueue("pp", "recv", peer), Wait(), Work(0.1)]
            items += [Turn(1, "forward"), work, Turn(~1, "backward"), work, Enqueue("pp", "send", peer)]
        else:
            items = [Turn(1, "forward"), work, Enqueue("pp", "send", peer), Turn(NO_ROW, "outside")]
            items += [Enqueue("pp", "recv", peer), Wait(), Work(0.1), Turn(~1, "backward"), work]
        return [*items, Turn(NO_ROW, "optimizer"), Work(2), Enqueue(f"dp{rank // 4}"), Wait()]

    return program


def test_a_long_stage_is_named() -> None:
    groups = {"pp": tuple(range(8)), "dp0": (0, 1, 2, 3), "dp1": (4, 5, 6, 7)}

    def found(*times: float) -> RankVerdict:
        return verdict_of(
            SimulatedJob(
                stages(*times), 8, groups, sizes={"dp": 4, "pp": 2, "mp": 2},
                coordinates=lambda rank: {"dp": rank % 4, "pp": rank // 4, "mp": rank // 4},
            ).run()
        )  # fmt: skip

    long = found(10, 30)
    assert (long.finding, long.named, long.cause, long.group) == (NOBODY_STANDS_OUT, (), LONG_STAGE, (4, 5, 6, 7))
    assert "stage 1 of the pipeline (ranks 4-7)" in long.evidence
    assert found(20, 20).cause == ""


def test_a_rank_with_hot_experts_is_overloaded_where_it_is_slow() -> None:
    hot = {"dp": 8, "ep": 8, "experts": 8, "layers": 4, "hot": 4.0, "steps": 5}
    slow = report_of(**hot, slow_rank=1).verdict.ranks
    assert ([one.rank for one in slow.named], slow.cause) == ([1], EXPERT_OVERLOAD)
    assert report_of(**hot, slow_rank=2).verdict.ranks.cause == "", "rank 1 has the hot experts"
    assert report_of(**hot).verdict.ranks.cause == "", "it costs nothing"
    dense = report_of(**hot, slow_rank=1, slow_module="blocks.0.attn").verdict.ranks
    assert ([one.rank for one in dense.named], dense.cause) == ([1], ""), "it is slow in a module without experts"


def test_only_tokens_of_the_layer_where_it_is_slow_are_a_cause() -> None:
    """Rank 1 has the hot expert of blocks.1 and is slow in blocks.3, whose experts have equal loads."""

    def change(rank: int, record: Record) -> Record:
        if not isinstance(record, ExpertLoad):
            return record
        halves = np.split(record.tokens, 2)
        return replace(record, tokens=np.concatenate([halves[0], np.full_like(halves[1], 100)]))

    job: dict[str, Any] = {"dp": 8, "ep": 8, "experts": 8, "layers": 4, "hot": 4.0, "steps": 5, "slow_rank": 1}
    for module, cause in (("blocks.1.moe.router", EXPERT_OVERLOAD), ("blocks.3.moe.router", "")):
        found = changed_report(change, **job, slow_module=module).verdict.ranks
        assert ([one.rank for one in found.named], found.cause) == ([1], cause)
