"""What the report says of routers in the counted step, against planted records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text.blocks.moe.experts import experts_block
from distprof.records import Counts, ExpertRouting, LayerRouting, Record, RouterFigures

ROUTED, DROPPED, PADDING = [40, 30, 20, 0], [10, 0, 0, 0], [15, 0, 5, 0]


def report(*, without_mask: tuple[int, ...] = (), **more: Any) -> Report:
    """Returns the report of two ranks; on rank 1 all is twice as much."""

    def counted(rank: int, record: Record) -> list[Record]:
        if not isinstance(record, Counts):
            return [record]
        of = np.array([ROUTED, DROPPED, PADDING]) * (1 + rank)
        choices = LayerRouting(0, of[0], drops_known=True, dropped=of[1])
        masked = {} if rank in without_mask else {"masked_tokens": 100, "padding_tokens": 20, "padding": of[2]}
        return [record, ExpertRouting(record.iteration, (choices,), figures=(RouterFigures(0, **masked, **more),))]

    job = Job(dp=2, layers=2, experts=4, noise=0, steps=1)
    shards = [shard_of(out for one in rank_records(job, rank) for out in counted(rank, one)) for rank in (0, 1)]
    return analyse(run_of_shards(shards))


def test_the_share_of_padding_is_of_what_was_not_dropped() -> None:
    found = report()
    (layer,) = found.experts
    assert layer.counted is not None
    assert layer.counted.padding_share == pytest.approx(20 / 80)
    assert layer.counted.padding_shares == (0.5, 0.0, 0.25, None)
    assert found.expert_summary is not None and found.expert_summary.padding_share == pytest.approx(0.25)
    line = "In the counted step, 25% of what experts processed was padding, by the attention mask."
    assert line in [*experts_block(found)]


def test_of_padding_that_one_rank_did_not_see_nothing_is_said() -> None:
    found = report(without_mask=(1,))
    (layer,) = found.experts
    assert layer.counted is not None
    assert (layer.counted.padding_share, layer.counted.padding_shares) == (None, ())
    assert not [line for line in experts_block(found) if "padding" in line]


def test_entropy_and_z_loss_are_means_over_the_tokens_of_all_ranks() -> None:
    scores: dict[str, Any] = {"scored_tokens": 10, "entropy": np.array([6.0]), "z_loss": np.array([20.0])}
    (layer,) = report(**scores).experts
    assert layer.counted is not None
    assert [layer.counted.entropy, layer.counted.z_loss] == pytest.approx([0.6, 2.0])
    (unknown,) = report(**{**scores, "z_loss": np.zeros(0)}).experts
    assert unknown.counted is not None and unknown.counted.z_loss is None
