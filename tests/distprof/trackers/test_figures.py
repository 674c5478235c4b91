"""The figures and pictures that a tracker gets."""

from __future__ import annotations

from statistics import median

import pytest
from support.reports import report_of

from distprof.trackers.figures import figures_of


def test_figures_are_those_of_the_report() -> None:
    report = report_of(dp=4, tp=2, layers=4, steps=5, noise=0.0, slow_rank=5, hot=3.0)
    figures = figures_of(report, "the page", pictures=False)
    assert report.summary.iterations is not None
    assert figures.scalars["iteration/median_ms"] == report.summary.iterations.median_ns / 1e6
    assert figures.scalars["verdict/slow_ranks"] == 1
    assert figures.scalars["run/recorded_ranks"] == 8
    assert figures.scalars["experts/largest_max_over_mean"] == report.verdict.expert.max_over_mean
    assert figures.scalars["memory/largest_peak_bytes"] == max(row.peak_memory_bytes or 0 for row in report.ranks)
    assert figures.setup["tp_size"] == "2" and figures.text == "the page"


def test_what_was_not_measured_is_left_out() -> None:
    """No peak is known of the device, and waits are not known without collectives."""
    names = set(figures_of(report_of(dp=4), "", pictures=False).scalars)
    assert not [name for name in names if name.startswith(("utilization/", "wait/", "verdict/cost"))]


def test_an_iteration_has_the_median_of_its_ranks() -> None:
    report = report_of(dp=4, steps=3)
    figures = figures_of(report, "", pictures=False)
    row = report.ranks[0]
    assert list(figures.iterations) == list(row.step_iterations) and figures.step == row.step_iterations[-1]
    for place, iteration in enumerate(row.step_iterations):
        own = [rank.step_durations_ns[place] for rank in report.ranks]
        assert figures.iterations[iteration] == pytest.approx(median(own) / 1e6)
