"""Tests that every part of the bench measures something; its numbers need a quiet machine."""

from __future__ import annotations

import re
import shutil
import sys
from importlib import import_module
from math import exp, hypot, log
from pathlib import Path
from types import ModuleType

import pytest
from support.forking.server import forking_python

TOOLS = Path(__file__).parents[2] / "tools"


def test_every_part_gives_its_table(
    tmp_path: Path, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its processes and their ranks are forks: most of their time would be the import of torch."""
    monkeypatch.syspath_prepend(str(TOOLS))
    page, forking = tmp_path / "page.md", str(forking_python(clean_env))
    monkeypatch.setattr(import_module("bench.process"), "PYTHON", forking)
    monkeypatch.setenv("PYTHON_EXEC", forking)  # read by torchrun
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--out", str(page)])
    import_module("bench.__main__").main()
    shown = capsys.readouterr().out
    has_browser = all(map(shutil.which, ("chromium", "chromedriver")))
    tables = _tables(page.read_text(encoding="utf-8"))
    assert [title.partition(",")[0] for title in tables] == [
        "A training step of 164 modules",
        "What is added to a step of 86 modules",
        "Tokens of 64 experts in each of 1 layers",
        "Start-up",
        "Memory of a rank",
        "A rank of a large world",
        "Size of a shard",
        "A shard after a week of windows",
        "Reading torch's flight recorder",
        "distprof merge",
        "distprof merge --no-plots of 2 ranks of 999 modules",
        "Reading 10 steps of 2 ranks",
        "One rank more in a merge",
        *(["report.html"] if has_browser else []),
    ]
    for title, table in tables.items():
        assert table in shown
        for row in table.splitlines()[4:]:
            assert re.search(r"\| -?\d[\d,.]*( \(.*\))? \||not installed", row), (
                f"{title}: nothing was measured in {row}"
            )

    begin = page.read_text(encoding="utf-8").splitlines()[2]
    pays = "What you pay:.* ms with many small modules takes .* times as long"
    assert re.search(f"{pays}.*What you save:.*torch.profiler", begin)


def _tables(page: str) -> dict[str, str]:
    """Returns the tables by title: the line of the title, a blank one, and the rows."""
    found = re.findall(r"^(## (.*)\n\n(?:\|.*\n)+)", page, re.MULTILINE)
    return {title: table for table, title in found}


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return import_module("bench.estimate")


@pytest.mark.parametrize(
    ("value", "budget", "verdict"),
    [(1.084, 1.08, "1.08: kept"), (1.086, 1.08, "1.08: **missed**"), (0.9, 1.08, "1.08: kept"), (2.0, None, "")],
)
def test_a_budget_is_kept_as_far_as_its_digits_go(
    value: float, budget: float | None, verdict: str, estimate: ModuleType
) -> None:
    assert estimate.verdict(estimate.sure(value), budget, 2) == verdict


def test_the_interval_decides_whether_a_budget_is_kept(estimate: ModuleType) -> None:
    for value, low, high, said in (
        (1.05, 1.02, 1.08, "kept"),
        (1.07, 1.04, 1.10, "cannot be told by this run"),
        (1.10, 1.07, 1.13, "cannot be told by this run"),
        (1.12, 1.09, 1.15, "**missed**"),
    ):
        assert estimate.verdict(estimate.Estimate(value, low, high), 1.08, 2) == f"1.08: {said}"


def test_a_ratio_has_the_interval_of_both(estimate: ModuleType) -> None:
    """Intervals of 10 and 24 % in logarithms make one of 26 %."""
    one = estimate.Estimate(8.0, 8.0 / exp(0.10), 8.0 * exp(0.10))
    other = estimate.Estimate(2.0, 2.0 / exp(0.24), 2.0 * exp(0.24))
    found = estimate.ratio(one, other)
    assert found.value == pytest.approx(4) and found.low == pytest.approx(4 / exp(0.26))
    assert found.high == pytest.approx(4 * exp(0.26))
    lower = estimate.ratio(estimate.Estimate(8.0, 7.0, 8.0), estimate.Estimate(2.0, 2.0, 2.5))
    assert lower.high == 4 and lower.low == pytest.approx(4 / exp(hypot(log(8 / 7), log(2.5 / 2))))


@pytest.mark.parametrize("ends", [(0.0, 30.0), (9.5, 10.5)])
def test_outliers_do_not_move_the_middle_half(ends: tuple[float, float], estimate: ModuleType) -> None:
    found = estimate.middle_half([ends[0], *[9.9, 10.1] * 5, ends[1]])
    assert found.value == pytest.approx(10) and found.low < 10 < found.high
    assert found.high - found.low == pytest.approx(0.2412, abs=1e-4)  # six of 9.9 and six of 10.1
    ratios = estimate.middle_ratio([0.5, 2.0, 1.0])
    assert ratios.value == pytest.approx(1) and ratios.low == pytest.approx(1 / ratios.high)
    assert estimate.middle_half([3.0]) == estimate.sure(3.0)
