"""Tokens by global expert: each token counts once, however the experts are distributed over ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import Change, changed_report

from distprof.merge.report import ExpertLayerStats
from distprof.records import ExpertLayers, ExpertLoad, Parameters, Record, Step, Topology


def layers(change: Change | None = None, without: tuple[int, ...] = (), **job: Any) -> tuple[ExpertLayerStats, ...]:
    return changed_report(change, without, **{"noise": 0, **job}).experts


# Without noise every expert processes 100 tokens in a step on each rank that hosts it; expert 1 ``hot`` times as many.


def test_experts_with_one_host_each() -> None:
    first, second = layers(dp=4, ep=4, layers=4, experts=4, steps=3, hot=5)
    assert (first.name, second.name) == ("blocks.1.moe", "blocks.3.moe")
    assert first.tokens == second.tokens == (300, 1500, 300, 300)
    assert first.expert_ranks == ((0,), (1,), (2,), (3,))
    assert (first.num_experts, first.steps, first.hottest, first.dead) == (4, 3, 1, ())
    assert first.max_over_mean == 1500 / 600


def test_expert_data_parallel_hosts_add_up() -> None:
    (layer,) = layers(dp=4, ep=2, experts=4, steps=2)
    assert layer.expert_ranks == ((0, 2), (0, 2), (1, 3), (1, 3))
    assert layer.tokens == (400, 400, 400, 400)
    assert layer.max_over_mean == 1.0


def test_slices_of_an_expert_count_once() -> None:
    (whole,) = layers(dp=2, ep=2, tp=1, experts=4, steps=2)
    (sliced,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, tp_experts=True)
    assert sliced.tokens == whole.tokens == (200, 200, 200, 200)
    assert sliced.expert_ranks == ((0, 1), (0, 1), (2, 3), (2, 3))


def test_copies_on_tp_ranks_with_the_same_tokens_count_once() -> None:
    (same,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2)
    assert same.tokens == (200, 200, 200, 200)
    (own,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, split_tokens=True)
    assert own.tokens == (400, 400, 400, 400), "each router saw half of the tokens, so equal loads are chance"


def test_copies_with_different_loads_add_up() -> None:
    (layer,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, noise=0.1)
    assert all(count is not None and count > 300 for count in layer.tokens)


def test_a_sliced_shared_expert_leaves_the_other_experts_whole() -> None:
    (layer,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, shared_expert=True, noise=0.1)
    assert all(count is not None and count > 300 for count in layer.tokens)


def test_loads_by_ep_rank() -> None:
    (layer,) = layers(dp=4, ep=2, experts=4, steps=2, hot=3)
    assert layer.tokens == (400, 1200, 400, 400)
    assert layer.ep_tokens == (1600, 800)
    assert layer.ep_max_over_mean == 1600 / 1200
    (alone,) = layers(dp=2, experts=4)
    assert (alone.ep_tokens, alone.ep_max_over_mean) == ((), None)


def test_an_unrecorded_ep_rank_has_no_load() -> None:
    (layer,) = layers(dp=4, ep=4, experts=4, steps=1, without=(2,))
    assert layer.ep_tokens == (100, 100, None, 100)


def test_experts_sliced_over_etp_count_once() -> None:
    """With tp 1 and etp 2, the slices of an expert are on ranks with different dp coordinates."""

    def with_etp(rank: int, record: Record) -> Record:
        if isinstance(record, Topology):
            finer = {"etp": (2, rank % 2), "edp": (1, 0), "ep": (2, rank // 2)}
            sizes = record.sizes | {axis: size for axis, (size, _) in finer.items()}
            return replace(record, sizes=sizes, coordinates=record.coordinates | {a: c for a, (_, c) in finer.items()})
        if isinstance(record, ExpertLayers):
            local = (0, 1) if rank < 2 else (2, 3)
            return ExpertLayers(tuple(replace(layer, local_experts=local) for layer in record.layers))
        if isinstance(record, Parameters):
            pieces = tuple(replace(p, sharded=("etp",)) if p.kind == "expert" else p for p in record.parameters)
            return replace(record, parameters=pieces)
        return record

    (layer,) = layers(with_etp, dp=4, ep=2, experts=4, steps=2)
    assert layer.tokens == (200, 200, 200, 200)
    assert layer.ep_tokens == (400, 400)


def test_the_lowest_recorded_rank_with_a_slice_counts() -> None:
    (layer,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, tp_experts=True, without=(0,))
    assert layer.tokens == (200, 200, 200, 200)


def test_an_expert_without_a_recorded_host_has_no_load() -> None:
    (layer,) = layers(dp=4, ep=4, experts=4, steps=1, without=(2,))
    assert layer.tokens == (100, 100, None, 100)
    assert layer.expert_ranks[2] == ()
    assert layer.max_over_mean == 1.0


def test_an_expert_whose_host_recorded_no_loads_has_a_host() -> None:
    def without_loads(rank: int, record: Record) -> Record | None:
        return None if rank == 2 and isinstance(record, ExpertLoad) else record

    (layer,) = layers(without_loads, dp=4, ep=4, experts=4, steps=1)
    assert layer.tokens == (100, 100, None, 100)
    assert layer.expert_ranks[2] == (2,)


def test_dead_experts() -> None:
    def without_tokens(rank: int, record: Record) -> Record:
        return replace(record, tokens=record.tokens * 0) if rank == 3 and isinstance(record, ExpertLoad) else record

    (layer,) = layers(without_tokens, dp=4, ep=4, experts=4)
    assert layer.dead == (3,)
    assert layer.max_over_mean == pytest.approx(4 / 3)


def test_a_layer_without_tokens_has_no_hottest_expert() -> None:
    def without_tokens(rank: int, record: Record) -> Record:
        return replace(record, tokens=record.tokens * 0) if isinstance(record, ExpertLoad) else record

    (layer,) = layers(without_tokens, dp=2, experts=4)
    assert (layer.tokens, layer.hottest, layer.max_over_mean) == ((0, 0, 0, 0), None, None)
    assert layer.dead == (0, 1, 2, 3)


def test_only_steps_that_all_hosts_recorded_count() -> None:
    def killed_early(rank: int, record: Record) -> Record | None:
        late = isinstance(record, Step | ExpertLoad) and record.iteration > 7
        return None if rank == 1 and late else record

    (layer,) = layers(killed_early, dp=2, ep=2, experts=4, steps=5)
    assert layer.steps == 2
    assert layer.tokens == (200, 200, 200, 200)


def test_a_layer_without_timed_steps_has_hosts_and_no_loads() -> None:
    (layer,) = layers(lambda rank, record: None if isinstance(record, Step) else record, dp=2, ep=2, experts=4)
    assert (layer.steps, layer.tokens, layer.max_over_mean) == (0, (None,) * 4, None)
    assert layer.expert_ranks == ((0,), (0,), (1,), (1,))


def test_loads_of_the_wrong_shape_are_ignored() -> None:
    def nine_experts(rank: int, record: Record) -> Record:
        return replace(record, tokens=np.arange(9)) if isinstance(record, ExpertLoad) else record

    (layer,) = layers(nine_experts, dp=1, experts=4)
    assert layer.tokens == (None,) * 4


def test_a_dense_model_has_no_layers() -> None:
    assert layers(dp=2, experts=0) == ()
