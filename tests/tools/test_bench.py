"""The bench, once through: that every part of it measures something; what it measures is for quiet machines."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from support.processes import output_of

TOOLS = Path(__file__).parents[2] / "tools"


def test_every_part_gives_its_table(tmp_path: Path, clean_env: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    shown = output_of("-m", "bench", "--quick", "--out", page, cwd=TOOLS, env=clean_env)
    tables = _tables(page.read_text(encoding="utf-8"))
    assert [title.partition(",")[0] for title in tables] == [
        "A training step of 164 modules",
        "Start-up",
        "Memory of a rank",
        "Size of a shard",
        "distprof merge",
    ]
    for title, table in tables.items():
        assert table in shown
        for row in table.splitlines()[4:]:
            assert re.search(r"\| -?\d[\d,.]* \||not installed", row), f"{title}: nothing was measured in {row}"


def _tables(page: str) -> dict[str, str]:
    """By title: the title's own line, a blank one, and the rows."""
    found = re.findall(r"^(## (.*)\n\n(?:\|.*\n)+)", page, re.MULTILINE)
    return {title: table for table, title in found}


@pytest.mark.parametrize(
    ("value", "budget", "verdict"),
    [(1.084, 1.08, "1.08: kept"), (1.086, 1.08, "1.08: **missed**"), (0.9, 1.08, "1.08: kept"), (2.0, None, "")],
)
def test_a_budget_is_kept_as_far_as_its_digits_go(
    value: float, budget: float | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    assert import_module("bench.table").within(value, budget, 2) == verdict
