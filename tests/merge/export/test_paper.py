"""The main tables as Markdown and LaTeX: figures of the report, and names that stay text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from support.reports import collectives_of, report_of

from distprof.merge.export.paper import FORMS, render_tables
from distprof.merge.quantities import byte_size, duration
from distprof.merge.report import Report

JOB: dict[str, Any] = {"dp": 4, "tp": 2, "ep": 2, "slow_rank": 5, "hot": 3.0}


def whole_report() -> Report:
    return replace(report_of(**JOB), collectives=collectives_of(8))


def test_markdown_has_a_row_for_each_thing() -> None:
    report, text = whole_report(), render_tables(whole_report(), "markdown")
    titles = re.findall(r"^\*\*(.+)\*\*$", text, re.MULTILINE)
    assert [title.partition(",")[0] for title in titles] == [
        "Run synthetic-1", "Ranks", "Modules with most self time", "Load of experts",
        "Collectives of a rank in an iteration",
    ]  # fmt: skip
    worst = report.ranks[5]
    assert f"| 5 | 2 | 1 | 0 | {duration(worst.iteration_ns)} |" in text
    assert f"| {byte_size(worst.peak_memory_bytes)} |" in text
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_latex_has_as_many_cells_in_all_rows_of_a_table() -> None:
    text = render_tables(whole_report(), "latex")
    tables = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == 5
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
    assert r"all\_reduce of dp" in text and "12.5%" not in text.replace(r"\%", "")


@pytest.mark.parametrize("form", FORMS)
def test_hostile_names_stay_text(form: str) -> None:
    report = whole_report()
    name = "<script>|a|\n\\input{x}$%&_#~^*`[l](u)"
    modules = tuple(replace(row, label=name) for row in report.modules)
    text = render_tables(replace(report, modules=modules), form)
    assert "<script>" not in text
    if form == "latex":
        assert r"\textless{}script\textgreater{}" in text and r"\textbackslash{}input\{x\}\$\%\&\_\#" in text
    else:
        assert r"\<script\>\|a\|" in text and r"\[l\](u)" in text


@pytest.mark.parametrize("job", [{"dp": 1}, {"dp": 3, "steps": 0}, {"dp": 2, "mode": "forward", "counted": False}])
def test_what_was_not_measured_is_said(job: dict[str, Any]) -> None:
    for form in FORMS:
        assert "n/a" in render_tables(report_of(**job), form)
