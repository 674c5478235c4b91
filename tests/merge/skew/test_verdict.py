"""The verdict: data with its evidence, the same in the report, in text and in JSON."""

from __future__ import annotations

import json

import pytest
from support.reports import report_of

from distprof.merge.export.json import to_json
from distprof.merge.report import BALANCED, NOBODY_STANDS_OUT, NOT_ENOUGH, NOT_SEEN, OVERLOADED, SLOW, SLOW_TOGETHER
from distprof.merge.skew.verdict import SLOW_SHARE

JOB = {"dp": 4, "tp": 2, "ep": 2, "layers": 4, "slow_rank": 5}


def test_slow_rank_with_its_evidence() -> None:
    report = report_of(**JOB)
    found = report.verdict.ranks
    assert (found.finding, [one.rank for one in found.named], found.likely, found.reason) == (SLOW, [5], 5, "")
    assert found.largest == found.named[0] == report.skew.suspects.ranks[0]  # type: ignore[union-attr]
    assert found.iteration_ns == report.summary.wall_iteration_ns.median  # type: ignore[union-attr]
    assert found.share is not None and found.iteration_ns is not None
    assert found.share == pytest.approx(found.named[0].excess_ns / found.iteration_ns)
    assert found.share >= found.slow_share == SLOW_SHARE


def test_several_that_are_slow_together() -> None:
    found = report_of(dp=8, ep=4, slow_rank=1, waits_in="blocks.1.moe").verdict.ranks
    assert (found.finding, sorted(one.rank for one in found.named)) == (SLOW_TOGETHER, [0, 1, 2, 3])
    assert (found.axis, found.likely) == ("ep", 1)


def test_an_excess_below_the_threshold_names_nobody() -> None:
    found = report_of(dp=4).verdict.ranks
    assert (found.finding, found.named, found.likely) == (NOBODY_STANDS_OUT, (), None)
    assert found.largest is not None and found.share is not None and found.share < SLOW_SHARE


@pytest.mark.parametrize("job", [{"dp": 1}, {"dp": 2, "slow_rank": 1}, {"dp": 4, "steps": 0}])
def test_where_there_is_not_enough_to_tell_the_reason_is_given(job: dict[str, int]) -> None:
    report = report_of(**job)
    found = report.verdict.ranks
    assert (found.finding, found.named, found.largest) == (NOT_ENOUGH, (), None)
    assert found.reason == report.skew.too_few != ""


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
