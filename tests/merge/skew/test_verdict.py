"""The verdict: data with its evidence, the same in the report, in text and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.reports import report_of
from support.synthetic import MS, Job, in_memory, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import (
    BALANCED,
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    NOT_SEEN,
    ONE_OF,
    OVERLOADED,
    SLOW,
    THROUGHOUT,
)
from distprof.merge.skew.thresholds import SLOW_SHARE
from distprof.merge.text.blocks.verdict import verdict
from distprof.records import Record, Step, Tree

JOB = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5}


def test_slow_rank_with_its_evidence() -> None:
    report = report_of(**JOB)
    found = report.verdict.ranks
    (one,) = found.named
    assert (found.finding, one.rank, found.reason) == (SLOW, 5, "")
    assert (one.subject, one.phase) == ("blocks.1.moe.router", "forward")
    assert one.excess_ns == pytest.approx(40e6, rel=0.01)
    assert found.iteration_ns == report.summary.iterations.median_ns, "as the first page says"  # type: ignore[union-attr]
    assert found.iteration_ns is not None and one.share == pytest.approx(one.excess_ns / found.iteration_ns)
    assert one.share >= found.slow_share == SLOW_SHARE
    assert (one.steps, one.of_steps, one.cohort) == (3, 3, 8), "tp ranks with equal pieces are of one cohort"
    assert one.cohort_ns == pytest.approx(0.2e6, rel=0.1)


def test_a_rank_that_may_only_wait_is_not_named_alone() -> None:
    found = report_of(dp=8, ep=4, slow_rank=1, waits_in="blocks.1.moe").verdict.ranks
    assert (found.finding, sorted(one.rank for one in found.named), found.axis) == (ONE_OF, [0, 1, 2, 3], "ep")
    places = {one.rank: one.subject for one in found.named}
    assert places == {0: "blocks.1.moe", 1: "blocks.1.moe.router", 2: "blocks.1.moe", 3: "blocks.1.moe"}


def test_of_two_ranks_that_wait_for_each_other_either_may_be_slow() -> None:
    found = report_of(dp=2, slow_rank=1).verdict.ranks
    assert (found.finding, sorted(one.rank for one in found.named)) == (ONE_OF, [0, 1])


def test_a_machine_that_is_slow_everywhere() -> None:
    def bend(rank: int, record: Record) -> Record:
        """Makes rank 2 slower by a quarter of each time; nobody waits."""
        if not isinstance(record, Step) or rank != 2:
            return record
        phases = {name: int(1.25 * time) for name, time in record.phases_ns.items()}
        forward, backward = ((1.25 * times).astype(np.int64) for times in (record.forward_ns, record.backward_ns))
        return replace(
            record, phases_ns=phases, duration_ns=sum(phases.values()), forward_ns=forward, backward_ns=backward
        )

    job = Job(dp=4, layers=4, noise=0.02)
    shards = [shard_of([bend(rank, one) for one in rank_records(job, rank)]) for rank in range(job.world)]
    report = analyse(run_of_shards(shards))
    (one,) = report.verdict.ranks.named
    assert (one.rank, one.subject, one.phase) == (2, THROUGHOUT, THROUGHOUT)
    assert one.share == pytest.approx(0.25, rel=0.1)
    assert " ".join(verdict(report)).startswith("slowest: rank 2, throughout: ")


def test_half_of_a_cohort_is_not_named_and_the_reason_is_given() -> None:
    def bend(rank: int, record: Record) -> Record:
        return slower(record, "blocks.0.attn", 40) if rank < 2 and isinstance(record, Step) else record

    def slower(step: Step, module: str, ms: int) -> Step:
        forward = step.forward_ns.copy()
        forward[names.index(module)] += ms * MS
        return replace(step, forward_ns=forward)

    job = Job(dp=4)
    names = [row.name for row in next(one for one in rank_records(job, 0) if isinstance(one, Tree)).rows]
    shards = [shard_of([bend(rank, one) for one in rank_records(job, rank)]) for rank in range(job.world)]
    found = analyse(run_of_shards(shards)).verdict.ranks
    assert (found.finding, found.named) == (NOT_ENOUGH, ())
    assert found.reason.startswith(
        "ranks 0-1 take longer than ranks 2-3 in forward of blocks.0.attn: 2 of 4 ranks that do the same work"
    )


def test_where_nobody_stands_out_it_is_said_what_would_have_been_seen() -> None:
    found = report_of(dp=4).verdict.ranks
    assert (found.finding, found.named) == (NOBODY_STANDS_OUT, ())
    assert found.floor_ns is not None and found.iteration_ns is not None
    assert found.floor_ns >= SLOW_SHARE * found.iteration_ns


@pytest.mark.parametrize(
    "job", [{"dp": 1}, {"dp": 1, "pp": 2, "slow_rank": 1}, {"dp": 4, "steps": 0}, {"dp": 4, "steps": 2}]
)
def test_where_there_is_not_enough_to_tell_the_reason_is_given(job: dict[str, int]) -> None:
    report = report_of(**job)
    found = report.verdict.ranks
    assert (found.finding, found.named, found.floor_ns) == (NOT_ENOUGH, (), None)
    assert found.reason == report.skew.too_few != ""


def test_healthy_runs_name_nobody() -> None:
    """60 runs of every architecture, with times that vary by a third."""
    layouts: list[dict[str, Any]] = [
        {"dp": 8},
        {"dp": 4, "tp": 2},
        {"dp": 4, "pp": 2},
        {"dp": 2, "tp": 2, "pp": 2},
        {"dp": 8, "ep": 4},
    ]
    jobs = [Job(**layout, layers=2, steps=10, noise=0.3, seed=seed) for seed in range(12) for layout in layouts]
    named = [job for job in jobs if analyse(run_of_shards(in_memory(job))).verdict.ranks.named]
    assert named == []


def test_overloaded_expert() -> None:
    report = report_of(**JOB, hot=4.0)
    found = report.verdict.expert
    worst = max(report.experts, key=lambda layer: layer.max_over_mean or 0)
    assert (found.finding, found.layer, found.expert) == (OVERLOADED, worst.name, 1)
    assert found.max_over_mean == worst.max_over_mean


def test_balanced_experts_and_none() -> None:
    assert report_of(**JOB).verdict.expert.finding == BALANCED
    dense = report_of(dp=2, experts=0).verdict.expert
    assert (dense.finding, dense.expert, dense.max_over_mean) == (NOT_SEEN, None, None)


def test_summary_json_has_the_verdict() -> None:
    found = json.loads(to_json(report_of(**JOB)))["verdict"]
    assert (found["ranks"]["finding"], found["ranks"]["named"][0]["rank"]) == ("slow", 5)
    assert found["expert"]["finding"] == "balanced"
