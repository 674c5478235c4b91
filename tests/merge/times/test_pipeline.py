"""Micro-batches, bubbles and samples of a pipeline, on schedules with a known bubble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.reports import report_of
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text.blocks.pipeline import pipeline_block
from distprof.records import Record, Stage, Step, Topology


def gpipe(job: Job, virtual: int = 1) -> Report:
    """Every stage takes 1 ms forward and 2 ms backward for each micro-batch, and waits as in GPipe."""
    unit = 1_000_000

    def change(rank: int, record: Record) -> Record:
        if isinstance(record, Step):
            idle = 3 * (job.pp - 1) * unit // virtual
            # The forward phase includes the waiting between micro-batches.
            phases = {"forward": job.micro_batches * unit + idle, "backward": 2 * job.micro_batches * unit}
            phases |= {"other": 0, "optimizer": 5 * unit, "data": unit}
            own = np.zeros(len(record.forward_ns), np.int64)
            own[0] = job.micro_batches * unit
            return replace(record, phases_ns=phases, duration_ns=sum(phases.values()), forward_ns=own)
        if isinstance(record, Topology) and virtual > 1:
            stages = tuple(
                Stage(root, root * job.pp + job.coordinates(rank)["pp"], virtual * job.pp) for root in range(virtual)
            )
            return replace(record, stages=stages)
        return record

    records = ([change(rank, one) for one in rank_records(job, rank)] for rank in range(job.world))
    return analyse(run_of_shards([shard_of(one) for one in records]))


@pytest.mark.parametrize(("pp", "micro_batches"), [(2, 4), (4, 4), (2, 1)])
def test_bubble_of_gpipe(pp: int, micro_batches: int) -> None:
    rows = gpipe(Job(dp=2, pp=pp, layers=pp, micro_batches=micro_batches)).pipeline
    assert [row.stage for row in rows] == list(range(pp))
    for row in rows:
        assert row.ideal_bubble == (pp - 1) / (micro_batches + pp - 1)
        assert row.bubble == pytest.approx(row.ideal_bubble)
        assert (row.micro_batches, row.virtual_stages, len(row.ranks)) == (micro_batches, 1, 2)
        assert row.forward_ns == micro_batches * 1_000_000


def test_virtual_stages_shrink_the_bubble() -> None:
    rows = gpipe(Job(dp=1, pp=2, layers=2, micro_batches=4), virtual=2).pipeline
    for row in rows:
        assert row.virtual_stages == 2
        assert row.bubble == pytest.approx(1 / 9) == row.ideal_bubble


def test_no_pipeline_block_without_a_pipeline() -> None:
    assert report_of(dp=4).pipeline == ()
    assert list(pipeline_block(report_of(dp=4))) == []


def test_pipeline_block_has_formula_and_stages() -> None:
    lines = list(pipeline_block(gpipe(Job(dp=2, pp=2, layers=2, micro_batches=4))))
    assert (
        "bubble = 1 - (forward in modules + backward) / (iteration - data wait - optimizer - evaluation)"
        in " ".join(lines)
    )
    assert lines[-1].split() == ["1", "1", "4", "4.00", "8.00", "3.00", "20%", "20%", "2-3"]


@pytest.mark.parametrize(
    "layout", [{"dp": 4}, {"dp": 4, "tp": 2}, {"dp": 4, "pp": 2}, {"dp": 4, "tp": 2, "pp": 2, "ep": 2}]
)
def test_samples_count_data_parallel_ranks_times_micro_batches(layout: dict[str, int]) -> None:
    summary = report_of(**layout, micro_batches=3, batch=8, noise=0).summary
    assert summary.samples_per_iteration == 4 * 3 * 8
    assert summary.wall_iteration_ns is not None
    assert summary.samples_per_second_at_median == pytest.approx(96 / (summary.wall_iteration_ns.median / 1e9))


def test_samples_are_those_of_the_first_stage() -> None:
    """Later stages get activations, whose first dimension may be the sequence."""

    def change(rank: int, record: Record) -> Record:
        if isinstance(record, Step) and rank >= 2:
            return replace(record, batch_size=64, samples=64 * record.micro_batches)
        return record

    job = Job(dp=2, pp=2, micro_batches=2, batch=8)
    records = ([change(rank, one) for one in rank_records(job, rank)] for rank in range(job.world))
    summary = analyse(run_of_shards([shard_of(one) for one in records])).summary
    assert (summary.batch_size_per_rank, summary.samples_per_iteration) == (8, 2 * 2 * 8)
