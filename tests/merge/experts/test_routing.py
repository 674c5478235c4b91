"""What routers chose, beside what experts processed: each token once, and what was dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import ExpertLayerStats
from distprof.merge.text.blocks.experts import experts_block
from distprof.records import ExpertLayers, ExpertLoad, ExpertRouting, Record

#: What a rank's router chose in one step of one layer, by global expert, and what of it was dropped.
ROUTED, DROPPED = [40, 30, 20, 10], [10, 0, 0, 5]
Bend = Callable[[int, Record], list[Record]]


def routing(iteration: int, **more: Any) -> ExpertRouting:
    told: dict[str, Any] = {"layers": (0,), "routed": np.array(ROUTED), **more}
    return ExpertRouting(iteration, **told)


def told_by_gates(rank: int, record: Record) -> list[Record]:
    """As DeepSpeed's layers: what experts process cannot be seen on their ranks."""
    if isinstance(record, ExpertLayers):
        return [ExpertLayers(tuple(replace(layer, counted=False) for layer in record.layers))]
    if isinstance(record, ExpertLoad):
        loss = {"aux_loss": np.array([3.0 + rank]), "aux_calls": np.array([2])}
        return [routing(record.iteration, drops_known=(0,), dropped=np.array(DROPPED), **loss)]
    return [record]


def told_by_routers(rank: int, record: Record) -> list[Record]:
    """Beside what experts process."""
    return [record, routing(record.iteration)] if isinstance(record, ExpertLoad) else [record]


def report(bend: Bend, without: tuple[int, ...] = (), **job: Any) -> Any:
    made = Job(**{"noise": 0, "experts": 4, "steps": 2, "layers": 2, **job})
    ranks = sorted(set(range(made.world)) - set(without))
    return analyse(
        run_of_shards([shard_of(out for one in rank_records(made, rank) for out in bend(rank, one)) for rank in ranks])
    )


def layer(bend: Bend, without: tuple[int, ...] = (), **job: Any) -> ExpertLayerStats:
    (found,) = report(bend, without, **job).experts
    stats: ExpertLayerStats = found
    return stats


def test_what_experts_process_is_what_was_chosen_and_kept() -> None:
    seen = layer(told_by_gates, dp=2, ep=2)
    assert seen.routed == (160, 120, 80, 40)  # two ranks, two steps
    assert seen.tokens == (120, 120, 80, 20)
    assert (seen.dropped, seen.drop_rate) == (60, 0.15)
    assert sum(count or 0 for count in seen.tokens) == sum(seen.routed) - 60
    assert seen.ep_tokens == (240, 100)
    assert (seen.hosts, seen.steps, seen.top_k) == (((0,), (0,), (1,), (1,)), 2, 2)
    assert seen.aux_loss == (3 / 2 + 4 / 2) / 2


def test_tensor_parallel_ranks_that_route_the_same_tokens_count_once() -> None:
    alike = layer(told_by_gates, dp=2, ep=2, tp=2)
    assert (alike.routed, alike.dropped) == ((160, 120, 80, 40), 60)
    own = layer(told_by_gates, dp=2, ep=2, tp=2, split_tokens=True)
    assert (own.routed, own.dropped) == ((320, 240, 160, 80), 120)


def test_what_was_dropped_on_the_way_is_what_did_not_arrive_if_all_ranks_told() -> None:
    def sparse(rank: int, record: Record) -> list[Record]:
        """Each expert processes 15 tokens a step from each rank, of 25 that were chosen in the mean."""
        if isinstance(record, ExpertLoad):
            record = replace(record, tokens=np.full(len(record.tokens), 15))
        return told_by_routers(rank, record)

    seen = layer(sparse, dp=2)
    assert (seen.tokens, sum(seen.routed)) == ((60,) * 4, 400)
    assert (seen.dropped, seen.drop_rate) == (160, 0.4)
    partly = layer(sparse, dp=2, without=(1,))
    assert (sum(partly.routed), partly.dropped) == (200, None)


def test_more_than_was_chosen_cannot_arrive() -> None:
    assert layer(told_by_routers, dp=2).dropped is None


def test_a_rank_that_did_not_see_its_routing_leaves_it_unknown() -> None:
    def blind(rank: int, record: Record) -> list[Record]:
        return [one for one in told_by_gates(rank, record) if rank == 0 or not isinstance(one, ExpertRouting)]

    seen = layer(blind, dp=2)
    assert (seen.routed, seen.tokens, seen.dropped, seen.steps) == ((), (None,) * 4, None, 0)


def test_loads_of_which_nothing_was_seen_are_unknown() -> None:
    def unseen(rank: int, record: Record) -> list[Record]:
        return [replace(record, tokens=record.tokens * 0, unseen=(0,)) if isinstance(record, ExpertLoad) else record]

    seen = layer(unseen, dp=2)
    assert (seen.tokens, seen.dead, seen.steps) == ((None,) * 4, (), 0)


@pytest.mark.parametrize("wrong", [{"layers": (1,)}, {"routed": np.arange(5)}])
def test_routing_of_other_layers_than_those_that_hold_is_passed_over(wrong: dict[str, Any]) -> None:
    def bend(rank: int, record: Record) -> list[Record]:
        return [record, routing(record.iteration, **wrong)] if isinstance(record, ExpertLoad) else [record]

    assert layer(bend, dp=1).routed == ()


def test_the_text_says_what_was_chosen_and_dropped() -> None:
    lines = list(experts_block(report(told_by_gates, dp=2, ep=2)))
    assert [line.split() for line in lines[-2:]] == [
        ["layer", "top-k", "chosen", "dropped", "aux", "loss"],
        ["blocks.1.moe", "2", "400", "60", "15%", "1.75"],
    ]
    unknown = list(experts_block(report(told_by_routers, dp=2)))
    assert unknown[-1].split() == ["blocks.1.moe", "2", "400", "n/a", "n/a"]
