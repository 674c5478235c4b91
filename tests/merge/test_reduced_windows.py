"""Tests of what the report says of old windows of which only summaries are left."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from support.synthetic import MS, Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.export.json import to_json
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import ReducedWindow, Report, SlowInWindow
from distprof.merge.text import TextOptions, render
from distprof.records import FORWARD, TRAINING, Counts, Record, Step, WindowSummary

GPU = "NVIDIA H100 80GB HBM3"
ITERATIONS = 4


def summary(window: int, mean_ms: int = 100, data_ms: int = 5, macs: int = 0, mode: str = TRAINING) -> WindowSummary:
    return WindowSummary(
        window=window,
        mode=mode,
        start=100 * window + 6,
        iterations=ITERATIONS,
        duration_ns=ITERATIONS * mean_ms * MS,
        longest_ns=2 * mean_ms * MS,
        phases_ns={"data": ITERATIONS * data_ms * MS, "forward": ITERATIONS * 50 * MS},
        macs=macs,
        median_ns=(mean_ms - 1) * MS,
    )


def report_with(summaries: Mapping[int, list[WindowSummary]]) -> Report:
    """Returns the report of a job of four ranks that have these summaries."""
    job = Job(dp=4, layers=2, noise=0.0, chip=GPU, arithmetic="bf16")
    shards = []
    for rank in range(job.world):
        header, *others = rank_records(job, rank)
        own: list[Record] = [header, *summaries.get(rank, ()), *others]
        shards.append(shard_of(own))
    return analyse(run_of_shards(shards))


def test_a_run_without_summaries_has_no_reduced_windows() -> None:
    report = report_with({})
    assert report.run.reduced_windows == () and "Earlier windows" not in render(report, TextOptions())


def test_what_is_left_of_each_window() -> None:
    report = report_with(
        {rank: [summary(2, 100 + 2 * rank), summary(1), summary(1, mode=FORWARD)] for rank in range(3)}
    )
    first, second = report.run.reduced_windows
    assert first == ReducedWindow(1, 106, 3, 99.0 * MS, 200.0 * MS, None)
    assert (second.number, second.iteration_ns, second.longest_ns) == (2, 101.0 * MS, 208.0 * MS)
    assert len(report.run.windows) == 1, "only windows with all their records are among those"
    found = json.loads(to_json(report))["run"]["reduced_windows"]
    assert [window["number"] for window in found] == [1, 2]


def test_mfu_is_that_of_the_shown_window_scaled_by_time_and_macs() -> None:
    """With half of the MACs in the same time, half of the MFU is left."""
    records = rank_records(Job(dp=4, layers=2, noise=0.0, chip=GPU, arithmetic="bf16"), 0)
    (counts,) = [record for record in records if isinstance(record, Counts)]
    macs = sum(row.model_macs for row in counts.device_work)
    report = report_with({rank: [summary(1, 100, macs=macs), summary(2, 200, macs=macs // 2)] for rank in range(4)})
    shown_ns = [record.duration_ns for record in records if isinstance(record, Step)]
    assert report.utilization.mfu is not None
    mean_ns = sum(shown_ns) / len(shown_ns)
    for window, expected in zip(report.run.reduced_windows, (mean_ns / (100 * MS), mean_ns / (400 * MS)), strict=True):
        assert window.mfu == pytest.approx(report.utilization.mfu.job * expected, rel=1e-6)


@pytest.mark.parametrize(
    ("slow", "expected"),
    [
        ({2: summary(1, 100, data_ms=25)}, (SlowInWindow(2, "data", 20.0 * MS),)),
        ({2: summary(1, 130, data_ms=25)}, (SlowInWindow(2, "", 30.0 * MS),)),
        ({2: summary(1, 103, data_ms=8)}, ()),  # less than 5 % of an iteration
        ({1: summary(1, 100, data_ms=25), 2: summary(1, 100, data_ms=20)}, ()),  # no line can be drawn between them
    ],
)
def test_who_was_slow(slow: Mapping[int, WindowSummary], expected: tuple[SlowInWindow, ...]) -> None:
    (window,) = report_with({rank: [slow.get(rank, summary(1))] for rank in range(4)}).run.reduced_windows
    assert window.slow == expected


def test_of_two_ranks_nobody_is_named() -> None:
    (window,) = report_with({0: [summary(1)], 1: [summary(1, 200)]}).run.reduced_windows
    assert window.slow == ()


def test_the_block_has_the_last_windows() -> None:
    summaries = [summary(window) for window in range(29)]
    slow = [*summaries, summary(29, data_ms=25)]
    report = report_with({rank: slow if rank == 3 else [*summaries, summary(29)] for rank in range(4)})
    lines = render(report, TextOptions()).splitlines()
    block = lines[next(place for place, line in enumerate(lines) if "Earlier windows" in line) :]
    assert "The last 20 of 30; summary.json has all." in block[:5]
    rows = [line for line in block[:30] if line.rstrip().endswith(("-", "data)")) and "ms" in line]
    assert len(rows) == 20 and rows[0].split()[0] == "10"
    assert rows[-1].split() == ["29", "2906", "4", "99", "ms", "200", "ms", "n/a", "rank", "3", "(+20", "ms", "data)"]
