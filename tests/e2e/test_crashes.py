"""Tests of jobs that crash: the launcher's last line and the report give the same, right counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scripts import NewWorkplace

from distprof.merge.text import TextOptions, render

CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize("case", ["crash", "crash_before"])
def test_launcher_and_report_count_alike(case: str, new_workplace: NewWorkplace) -> None:
    place = new_workplace().forking()
    ended = place.run("--nproc", 2, CASES / f"{case}.py")
    assert ended.code == 1
    assert "distprof: 0 of 2 ranks recorded in runs/x; " in ended.last_line
    report = place.report()
    text = render(report, TextOptions())
    assert "ranks:    0 of 2 ranks recorded" in text
    assert {*report.run.without_data} == {*report.run.ranks} and report.run.ranks
    assert "no optimizer stepped" not in text
    assert report.summary.unavailable["bwd_flops_per_rank"] == "the run ended before its counted step"
    assert report.summary.unavailable["step_latency_ns"] == "no rank has reached a timed step"
