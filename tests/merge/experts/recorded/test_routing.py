"""Routers' choices and drops: each token counts once."""

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
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.records import ExpertLayers, ExpertLoad, ExpertRouting, LayerRouting, Record

#: The choices of one rank's router in one step of one layer, by global expert, and how many of them were dropped.
ROUTED, DROPPED = [40, 30, 20, 10], [10, 0, 0, 5]
Change = Callable[[int, Record], list[Record]]


def routing(iteration: int, **more: Any) -> ExpertRouting:
    return ExpertRouting(iteration, (LayerRouting(**{"layer": 0, "routed": np.array(ROUTED), **more}),))


def routing_only(rank: int, record: Record) -> list[Record]:
    """Returns the records of a stack like DeepSpeed, where the tokens of experts cannot be counted on their ranks."""
    if isinstance(record, ExpertLayers):
        return [ExpertLayers(tuple(replace(layer, counted=False) for layer in record.layers))]
    if isinstance(record, ExpertLoad):
        loss = {"aux_loss": np.array([3.0 + rank]), "aux_calls": 2}
        return [routing(record.iteration, drops_known=True, dropped=np.array(DROPPED), **loss)]
    return [record]


def handed_only(rank: int, record: Record) -> list[Record]:
    """Returns the records of a stack whose routers return scores: what its experts are handed is seen."""
    if isinstance(record, ExpertLoad):
        return [routing(record.iteration, handed=True)]
    return routing_only(rank, record)


def routing_and_loads(rank: int, record: Record) -> list[Record]:
    """Returns the records of a stack where routing and the tokens of experts are both seen."""
    return [record, routing(record.iteration)] if isinstance(record, ExpertLoad) else [record]


def report(change: Change, without: tuple[int, ...] = (), **job: Any) -> Any:
    made = Job(**{"noise": 0, "experts": 4, "steps": 2, "layers": 2, **job})
    ranks = sorted(set(range(made.world)) - set(without))
    return analyse(
        run_of_shards(
            [shard_of(out for one in rank_records(made, rank) for out in change(rank, one)) for rank in ranks]
        )
    )


def layer(change: Change, without: tuple[int, ...] = (), **job: Any) -> ExpertLayerStats:
    (found,) = report(change, without, **job).experts
    stats: ExpertLayerStats = found
    return stats


def test_loads_are_what_experts_are_handed_where_routers_are_not_read() -> None:
    seen = layer(handed_only, dp=2, ep=2)
    assert seen.tokens == seen.routed == tuple(2 * 2 * count for count in ROUTED)
    assert (seen.dropped, seen.drop_rate) == (None, None), "what was dropped before is not known"
    assert seen.over_steps is not None


def test_loads_are_the_kept_choices_where_only_routing_is_seen() -> None:
    seen = layer(routing_only, dp=2, ep=2)
    assert seen.routed == (160, 120, 80, 40)  # two ranks, two steps
    assert seen.tokens == (120, 120, 80, 20)
    assert (seen.dropped, seen.drop_rate) == (60, 0.15)
    assert sum(count or 0 for count in seen.tokens) == sum(seen.routed) - 60
    assert seen.ep_tokens == (240, 100)
    assert (seen.expert_ranks, seen.steps, seen.top_k) == (((0,), (0,), (1,), (1,)), 2, 2)
    assert seen.aux_loss == (3 / 2 + 4 / 2) / 2


def test_tp_ranks_that_route_the_same_tokens_count_once() -> None:
    same = layer(routing_only, dp=2, ep=2, tp=2)
    assert (same.routed, same.dropped) == ((160, 120, 80, 40), 60)
    own = layer(routing_only, dp=2, ep=2, tp=2, split_tokens=True)
    assert (own.routed, own.dropped) == ((320, 240, 160, 80), 120)


def test_dropped_is_chosen_minus_processed_if_all_ranks_recorded() -> None:
    def sparse(rank: int, record: Record) -> list[Record]:
        """Makes each expert process 15 tokens a step on each rank, of 25 that routers chose on average."""
        if isinstance(record, ExpertLoad):
            record = replace(record, tokens=np.full(len(record.tokens), 15))
        return routing_and_loads(rank, record)

    seen = layer(sparse, dp=2)
    assert (seen.tokens, sum(seen.routed)) == ((60,) * 4, 400)
    assert (seen.dropped, seen.drop_rate) == (160, 0.4)
    partly = layer(sparse, dp=2, without=(1,))
    assert (sum(partly.routed), partly.dropped) == (200, None)


def test_dropped_is_unknown_where_more_was_processed_than_chosen() -> None:
    assert layer(routing_and_loads, dp=2).dropped is None


def test_routing_is_unknown_if_one_rank_lacks_it() -> None:
    def on_rank_0(rank: int, record: Record) -> list[Record]:
        return [one for one in routing_only(rank, record) if rank == 0 or not isinstance(one, ExpertRouting)]

    seen = layer(on_rank_0, dp=2)
    assert (seen.routed, seen.tokens, seen.dropped, seen.steps) == ((), (None,) * 4, None, 0)


def test_unseen_loads_are_unknown() -> None:
    def unseen(rank: int, record: Record) -> list[Record]:
        return [replace(record, tokens=record.tokens * 0, unseen=(0,)) if isinstance(record, ExpertLoad) else record]

    seen = layer(unseen, dp=2)
    assert (seen.tokens, seen.dead, seen.steps) == ((None,) * 4, (), 0)


@pytest.mark.parametrize("wrong", [{"layer": 1}, {"routed": np.arange(5)}])
def test_routing_that_does_not_fit_the_layers_is_ignored(wrong: dict[str, Any]) -> None:
    def with_wrong_routing(rank: int, record: Record) -> list[Record]:
        return [record, routing(record.iteration, **wrong)] if isinstance(record, ExpertLoad) else [record]

    assert layer(with_wrong_routing, dp=1).routed == ()


def test_the_text_has_the_share_of_dropped_tokens() -> None:
    def last_cells(experts: Any, **job: Any) -> list[str]:
        title, row = (line for line in experts_block(report(experts, **job)) if line.startswith(("layer ", "blocks.")))
        return [title.split()[-1], row.split()[-1]]

    assert last_cells(routing_only, dp=2, ep=2) == ["dropped", "15%"]
    assert last_cells(routing_and_loads, dp=2) == ["dropped", "n/a"]
