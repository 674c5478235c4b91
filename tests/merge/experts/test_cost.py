"""The cost of unequal loads: own times of ep ranks in a layer, of a simulated job whose ranks wait for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import changed_report, report_of
from support.simulated.job import Enqueue, Item, SimulatedJob, Turn, Wait, Work
from support.synthetic import MS

from distprof.merge.analyse import analyse
from distprof.merge.experts.cost import EpTimes, with_costs
from distprof.merge.experts.summary import summarise
from distprof.merge.report import ONLY_DEVICE, ONLY_TOKENS, Report
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.records import NO_ROW, CollectiveWindow, ExpertLayer, Record, Step

#: ms in the forward of layers.1 by rank; ranks 0 and 2 have ep coordinate 0, ranks 1 and 3 have 1.
WORK = (10.0, 40.0, 14.0, 42.0)


def program(rank: int, step: int) -> list[Item]:
    """In the forward of layers.1 each rank computes and waits for the others; in its backward it takes 6 ms."""
    return iteration(WORK[rank])


def iteration(work: float) -> list[Item]:
    forward: list[Item] = [Turn(1, "forward"), Work(5), Turn(2, "forward"), Work(work), Enqueue("world"), Wait()]
    backward: list[Item] = [Work(2), Turn(~2, "backward"), Work(6)]
    return [*forward, *backward, Turn(NO_ROW, "optimizer"), Work(3), Enqueue("world"), Wait()]


def layers(rank: int) -> tuple[ExpertLayer, ...]:
    """Layers.1 has four experts, two on each ep rank."""
    first = 2 * (rank % 2)
    return (ExpertLayer("layers.1", 2, 4, (first, first + 1)),)


JOB = SimulatedJob(
    program,
    4,
    {"world": (0, 1, 2, 3)},
    sizes={"dp": 4, "ep": 2},
    coordinates=lambda rank: {"dp": rank, "ep": rank % 2},
    layers=layers,
    tokens=lambda rank, step: (100, 100),
)


def report(job: SimulatedJob = JOB, drop: type[Record] | None = None) -> Report:
    return analyse(replace(job, drop=lambda _, record: drop is not None and isinstance(record, drop)).run())


def test_own_times_are_without_the_wait_for_the_slowest_rank() -> None:
    (layer,) = report().experts
    work = "work of 12 and 41 ms, 2 after the collective, and 6 in backward"
    assert layer.ep_own_ns == pytest.approx((20 * MS, 49 * MS)), work
    assert layer.ep_cost_ns == pytest.approx(14.5 * MS)
    found = layer.tokens_or_device
    assert found is not None and (found.cause, layer.load_cost_ns) == (ONLY_DEVICE, 0), "all have as many tokens"
    assert found.slowness == pytest.approx((1, 49 / 20))


def test_modules_inside_a_layer_count() -> None:
    around = replace(JOB, layers=lambda rank: (replace(layers(rank)[0], name="", row=0),))
    (layer,) = report(around).experts
    assert layer.ep_own_ns == pytest.approx((25 * MS, 54 * MS)), "5 ms of layers.0 as well"


def test_without_waits_nothing_is_said() -> None:
    (layer,) = report(drop=CollectiveWindow).experts
    assert (layer.ep_own_ns, layer.ep_cost_ns, layer.load_cost_ns, layer.tokens_or_device) == ((), None, None, None)


def test_a_hot_expert_that_is_another_one_in_each_step_costs_as_much_as_one_that_stays() -> None:
    """Over all steps each ep rank has as many tokens and takes as long; in each step one has three times as many."""

    def tokens(rank: int, step: int) -> Sequence[int]:
        return (300, 300) if step % 2 == rank % 2 else (100, 100)

    job = replace(JOB, tokens=tokens, program=lambda rank, step: iteration(tokens(rank, step)[0] / 10 - 8))
    (layer,) = report(job).experts
    assert layer.ep_max_over_mean == 1.0
    assert layer.ep_cost_ns == pytest.approx(10 * MS), "30 and 10 ms, forward and backward"
    assert layer.load_cost_ns == pytest.approx(10 * MS)
    assert layer.tokens_or_device is not None and layer.tokens_or_device.cause == ONLY_TOKENS


def test_the_saving_is_that_of_all_layers() -> None:
    found = report_of(dp=4, ep=2, layers=4, noise=0.0)
    first, second = (replace(layer, ep_cost_ns=10e6) for layer in found.experts)
    summary = summarise((replace(first, load_cost_ns=8e6), replace(second, load_cost_ns=2e6)), 100e6)
    assert summary is not None and (summary.cost_ns, summary.cost_share) == (10e6, 0.1)


def test_the_block_has_the_cost_where_it_is_known() -> None:
    found = report_of(dp=4, ep=2, layers=2, noise=0.0)
    assert "cost" not in "\n".join(experts_block(found))
    (layer,) = found.experts
    lines = list(experts_block(replace(found, experts=(replace(layer, ep_cost_ns=14.5e6),))))
    head, row = (line for line in lines if line.startswith(("layer ", "blocks.")))
    assert "ep max/mean     cost" in head and "14.5 ms" in row


def test_a_rank_that_waits_for_a_processor_is_no_slow_device() -> None:
    """Ep rank 2 takes 2.5 times as long as the others for as many tokens; of this time, it runs for 40 %."""
    (layer,) = report().experts
    own_ns, tokens = np.full((4, 8), 10.0 * MS), np.full((4, 8), 100.0)
    own_ns[2] *= 2.5
    own_ns *= np.random.default_rng(0).uniform(0.99, 1.01, own_ns.shape)
    running_ns = own_ns.copy()
    running_ns[2] *= 0.4
    for ran_ns, cause in ((own_ns, ONLY_DEVICE), (running_ns, "")):
        found = with_costs(layer, EpTimes(tuple(range(8)), own_ns, ran_ns), tokens)
        assert found.tokens_or_device is not None and found.tokens_or_device.cause == cause
        assert found.ep_cost_ns == pytest.approx(15 * 3 / 4 * MS, rel=0.05), "what ranks wait for it is measured"


@pytest.mark.parametrize(("share", "cause"), [(0.0, ONLY_DEVICE), (0.8, "")])
def test_of_own_time_a_share_is_waiting_for_a_processor(share: float, cause: str) -> None:
    """Rank 3 takes four times as long in a layer, and nobody makes it wait: it waits for a processor, or is slow."""

    def change(rank: int, record: Record) -> Record:
        if rank != 3 or not isinstance(record, Step):
            return record
        return replace(record, processor_wait_seen=True, processor_wait_ns=int(share * record.duration_ns))

    job: dict[str, Any] = {"dp": 4, "ep": 4, "layers": 2, "experts": 8, "steps": 8, "collectives": 8, "noise": 0.01}
    found = changed_report(change, slow_rank=3, slow_ms=30, slow_module="blocks.1.moe.experts", **job)
    (layer,) = found.experts
    assert layer.tokens_or_device is not None and layer.tokens_or_device.cause == cause
