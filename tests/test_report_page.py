"""docs/REPORT.md describes the report that the code writes."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from support.reports import report_of

from distprof.merge.export.json import to_json
from distprof.merge.export.tables import all_tables

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "REPORT.md").read_text(encoding="utf-8")


def test_the_page_is_the_one_that_the_code_makes() -> None:
    code = runpy.run_path(str(ROOT / "tools" / "report_page.py"))
    assert code["page"]() == PAGE, "python tools/report_page.py writes it anew"


def test_every_field_and_column_is_described() -> None:
    rows = re.findall(r"^\| `\w+` \|.*\|$", PAGE, re.MULTILINE)
    assert len(rows) > 300
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == [], "a comment beside the field says what it holds"
    undescribed = re.findall(r"^### (\w+)\n\n\| field", PAGE, re.MULTILINE)
    assert undescribed == [], "the docstring of the dataclass says what it holds"


def names_in(section: str) -> set[str]:
    """Returns the names in the first column of the table below a heading."""
    text = PAGE.partition(f"\n### {section}\n")[2].partition("\n##")[0]
    return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_the_page_has_what_a_real_report_has() -> None:
    report = report_of(dp=4, tp=2, ep=2, slow_rank=5, hot=3.0)
    written: dict[str, Any] = json.loads(to_json(report))
    assert names_in("Report") == set(written)
    for section, value in (
        ("Summary", written["summary"]),
        ("RankRow", written["ranks"][0]),
        ("ModuleStats", written["modules"][0]),
        ("ExpertLayerStats", written["experts"][0]),
    ):
        assert names_in(section) == set(value)
    for table in all_tables(report).values():
        assert names_in(table.name) >= set(table.names)
