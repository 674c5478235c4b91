"""Who got the tokens: by global expert, once each, however the experts are spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load import run_of_shards
from distprof.merge.report import ExpertLayerStats
from distprof.records import ExpertLoad, Record, Step

Bend = Callable[[int, Record], Record | None]


def layers(bend: Bend | None = None, without: tuple[int, ...] = (), **job: Any) -> tuple[ExpertLayerStats, ...]:
    made = Job(**{"noise": 0, **job})
    shards = []
    for rank in set(range(made.world)) - set(without):
        kept = [bend(rank, record) if bend else record for record in rank_records(made, rank)]
        shards.append(shard_of(record for record in kept if record is not None))
    return analyse(run_of_shards(shards)).experts


# Without noise every expert gets 100 tokens a step from each rank that hosts it, expert 1 ``hot`` times as many.


def test_a_single_host_for_each_expert() -> None:
    first, second = layers(dp=4, ep=4, layers=4, experts=4, steps=3, hot=5)
    assert (first.name, second.name) == ("blocks.1.moe", "blocks.3.moe")
    assert first.tokens == second.tokens == (300, 1500, 300, 300)
    assert first.hosts == ((0,), (1,), (2,), (3,))
    assert (first.num_experts, first.steps, first.hottest, first.dead) == (4, 3, 1, ())
    assert first.max_over_mean == 1500 / 600


def test_expert_data_parallel_hosts_add_up() -> None:
    (layer,) = layers(dp=4, ep=2, experts=4, steps=2)
    assert layer.hosts == ((0, 2), (0, 2), (1, 3), (1, 3))
    assert layer.tokens == (400, 400, 400, 400)
    assert layer.max_over_mean == 1.0


def test_slices_of_one_expert_count_once() -> None:
    (whole,) = layers(dp=2, ep=2, tp=1, experts=4, steps=2)
    (sliced,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, tp_experts=True)
    (copied,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, tp_experts=False)
    assert sliced.tokens == whole.tokens == (200, 200, 200, 200)
    assert copied.tokens == (400, 400, 400, 400)  # each tp rank has tokens of its own
    assert sliced.hosts == ((0, 1), (0, 1), (2, 3), (2, 3))


def test_of_slices_the_lowest_recorded_rank_counts() -> None:
    (layer,) = layers(dp=2, ep=2, tp=2, experts=4, steps=2, tp_experts=True, without=(0,))
    assert layer.tokens == (200, 200, 200, 200)


def test_an_expert_that_no_recorded_rank_hosts_is_unknown() -> None:
    (layer,) = layers(dp=4, ep=4, experts=4, steps=1, without=(2,))
    assert layer.tokens == (100, 100, None, 100)
    assert layer.hosts[2] == ()
    assert layer.max_over_mean == 1.0


def test_an_expert_whose_host_lost_its_loads_is_unknown_but_hosted() -> None:
    def bend(rank: int, record: Record) -> Record | None:
        return None if rank == 2 and isinstance(record, ExpertLoad) else record

    (layer,) = layers(bend, dp=4, ep=4, experts=4, steps=1)
    assert layer.tokens == (100, 100, None, 100)
    assert layer.hosts[2] == (2,)


def test_dead_experts() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, tokens=record.tokens * 0) if rank == 3 and isinstance(record, ExpertLoad) else record

    (layer,) = layers(bend, dp=4, ep=4, experts=4)
    assert layer.dead == (3,)
    assert layer.max_over_mean == pytest.approx(4 / 3)


def test_without_a_single_token_nobody_is_hottest() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, tokens=record.tokens * 0) if isinstance(record, ExpertLoad) else record

    (layer,) = layers(bend, dp=2, experts=4)
    assert (layer.tokens, layer.hottest, layer.max_over_mean) == ((0, 0, 0, 0), None, None)
    assert layer.dead == (0, 1, 2, 3)


def test_only_steps_that_all_hosts_recorded_are_compared() -> None:
    def killed_early(rank: int, record: Record) -> Record | None:
        late = isinstance(record, Step | ExpertLoad) and record.iteration > 7
        return None if rank == 1 and late else record

    (layer,) = layers(killed_early, dp=2, ep=2, experts=4, steps=5)
    assert layer.steps == 2
    assert layer.tokens == (200, 200, 200, 200)


def test_without_a_timed_step_the_layer_is_there_and_its_loads_are_not() -> None:
    (layer,) = layers(lambda rank, record: None if isinstance(record, Step) else record, dp=2, ep=2, experts=4)
    assert (layer.steps, layer.tokens, layer.max_over_mean) == (0, (None,) * 4, None)
    assert layer.hosts == ((0,), (0,), (1,), (1,))


def test_loads_of_another_shape_than_the_layers_are_passed_over() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, tokens=np.arange(9)) if isinstance(record, ExpertLoad) else record

    (layer,) = layers(bend, dp=1, experts=4)
    assert layer.tokens == (None,) * 4


def test_a_dense_model_has_no_layers() -> None:
    assert layers(dp=2, experts=0) == ()
