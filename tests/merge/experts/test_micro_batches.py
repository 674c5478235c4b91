"""Loads of single micro-batches: what is hot in one of them is seen, where the sum over a step is balanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import changed_report

from distprof.merge.export.tables.experts import EXPERTS
from distprof.merge.report import ExpertLayerStats, MicroBatches, Report
from distprof.merge.text.blocks.moe.findings import findings
from distprof.records import ExpertLayers, ExpertLoad, ExpertRouting, LayerCalls, LayerRouting, Record

#: The loads of four experts in the two micro-batches of each step: expert 1 is hot, then 2; their sum is balanced.
LOADS = np.array([[20, 80, 20, 40], [60, 0, 60, 40]])
FIRST = 6  # the number of the first timed iteration


def processed(rank: int, record: Record, *, ep: int = 2, loads: np.ndarray = LOADS) -> Record:
    """Returns the records of a rank that hosts some of the experts in a row, and counts what they process."""
    if not isinstance(record, ExpertLoad):
        return record
    held = loads.shape[1] // ep
    own = loads[:, rank % ep * held :][:, :held]
    calls = LayerCalls(0, own.sum(axis=1), own.max(axis=1), own.argmax(axis=1))
    return replace(record, tokens=own.sum(axis=0), calls=(calls,))


def routed(rank: int, record: Record) -> Record:
    """Returns the records of a rank whose router alone shows the loads: half of all tokens are its own."""
    if isinstance(record, ExpertLayers):
        return ExpertLayers(tuple(replace(layer, counted=False) for layer in record.layers))
    if not isinstance(record, ExpertLoad):
        return record
    own = LOADS // 2
    layer = LayerRouting(0, own.sum(axis=0), drops_known=True, kept_by_call=own.reshape(-1), capacity=80)
    return ExpertRouting(record.iteration, (layer,))


def report(change: Callable[[int, Record], Record], without: tuple[int, ...] = (), **job: Any) -> Report:
    made = {"dp": 2, "ep": 2, "layers": 2, "experts": 4, "steps": 3, "noise": 0, **job}
    return changed_report(change, without, **made)


def only(found: Report) -> tuple[ExpertLayerStats, MicroBatches]:
    (layer,) = found.experts
    assert layer.micro_batches is not None
    return layer, layer.micro_batches


@pytest.mark.parametrize("change", [processed, routed])
def test_what_is_hot_in_a_micro_batch_survives_the_sum(change: Callable[[int, Record], Record]) -> None:
    layer, found = only(report(change))
    assert (layer.max_over_mean, layer.ep_max_over_mean) == (1, 1), "of the sums"
    assert (found.compared, found.a_step) == (6, 2)
    assert found.max_over_mean == pytest.approx((80 / 40 + 60 / 40) / 2)
    worst = found.worst
    assert (worst.max_over_mean, worst.iteration, worst.number, worst.hottest) == (80 / 40, FIRST, 0, 1)
    assert found.times_hottest == (3, 3, 0, 0), "the first of equal ones"
    assert found.ep_max_over_mean == pytest.approx((100 / 80 + 100 / 80) / 2)
    assert found.ep_worst is not None
    assert (found.ep_worst.max_over_mean, found.ep_worst.number, found.ep_worst.hottest) == (100 / 80, 0, 0)
    assert found.worst_by_step == (2.0,) * 3


def test_replicas_are_compared_each_by_itself() -> None:
    """The second pair of ranks has the micro-batches in the other order: over all ranks, each would be balanced."""

    def change(rank: int, record: Record) -> Record:
        return processed(rank, record, loads=LOADS if rank < 2 else LOADS[::-1])

    _, found = only(report(change, dp=4))
    assert (found.compared, found.worst.max_over_mean) == (12, 2.0)
    assert found.times_hottest == (6, 6, 0, 0)


def test_experts_that_are_whole_on_each_rank_have_no_ep_ranks() -> None:
    _, found = only(report(lambda rank, record: processed(rank, record, ep=1), dp=1, ep=1))
    assert (found.max_over_mean, found.ep_max_over_mean, found.ep_worst) == (1.75, None, None)


@pytest.mark.parametrize("change", [processed, routed])
def test_without_an_ep_rank_nothing_is_known(change: Callable[[int, Record], Record]) -> None:
    (layer,) = report(change, without=(1,)).experts
    assert layer.micro_batches is None


def test_micro_batches_without_tokens_are_left_out() -> None:
    loads = np.array([[0, 0, 0, 0], [10, 30, 20, 20]])
    _, found = only(report(lambda rank, record: processed(rank, record, loads=loads)))
    assert (found.compared, found.max_over_mean, found.worst.number) == (3, 1.5, 1)


def test_ranks_that_were_called_differently_often_are_not_compared() -> None:
    def change(rank: int, record: Record) -> Record:
        found = processed(rank, record)
        if rank == 1 and isinstance(found, ExpertLoad) and found.iteration == FIRST:
            (calls,) = found.calls
            return replace(
                found, calls=(replace(calls, tokens=np.array([5]), largest=np.array([5]), hottest=np.array([0])),)
            )
        return found

    _, found = only(report(change))
    assert (found.compared, found.worst.iteration, found.worst_by_step[0]) == (4, FIRST + 1, None)


def test_the_text_says_what_sums_hide() -> None:
    (line,) = (line for line in findings(report(processed)) if "micro-batches" in line)
    assert line == (
        "Sums over a step hide unequal micro-batches, whose max/mean is: blocks.1.moe 1.75 in the median, 1.25 of ep "
        "ranks, 2.00 at worst (expert 1 in iteration 6)."
    )
    even = np.full((2, 4), 20)
    assert not [line for line in findings(report(lambda *at: processed(*at, loads=even))) if "micro-batches" in line]


def test_the_table_of_experts_has_them_too() -> None:
    rows = EXPERTS.make(report(processed)).rows()
    assert [row["times_hottest"] for row in rows] == [3, 3, 0, 0]
    assert {row["micro_batch_max_over_mean"] for row in rows} == {1.75}


def test_the_capacity_is_that_of_all_ranks_and_steps() -> None:
    (layer,) = report(routed).experts
    assert layer.capacity == 80 * 2 * 3


def test_a_capacity_that_experts_exceed_is_none() -> None:
    def change(rank: int, record: Record) -> Record:
        found = routed(rank, record)
        if isinstance(found, ExpertRouting):
            (one,) = found.layers
            return replace(found, layers=(replace(one, capacity=39),))
        return found

    (layer,) = report(change).experts
    assert layer.capacity is None
