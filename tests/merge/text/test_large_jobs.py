"""The text of a job of 16,384 ranks: its first page as a golden copy, and no block that grows with the ranks.

After a change that is meant: UPDATE_GOLDEN=1 pytest tests/merge/text, and read the difference.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from support.page.many_ranks import grown
from support.reports import report_of

from distprof.merge.report import Report
from distprof.merge.text import DEFAULTS, TextOptions, render, render_first_page

GOLDEN = Path(__file__).parent / "golden" / "of_16384_ranks.txt"
RANKS = 16_384


def small() -> Report:
    return report_of(dp=4, tp=2, ep=2, layers=4, steps=4, noise=0.0, slow_rank=5, hot=3.0)


@lru_cache(maxsize=1)
def large() -> Report:
    return grown(small(), RANKS, slow_alone=True)


def test_golden_first_page() -> None:
    page = render_first_page(large())
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")


def test_the_whole_text_is_hardly_longer_than_that_of_512_ranks() -> None:
    lines, few = (render(report, DEFAULTS).splitlines() for report in (large(), grown(small(), 512, slow_alone=True)))
    assert abs(len(lines) - len(few)) <= 2, "some sentences may need another line for longer numbers"
    assert len(lines) < 350


def test_no_line_is_long() -> None:
    lines = render(large(), TextOptions(detail=False)).splitlines()
    assert max(map(len, lines)) <= 120, max(lines, key=len)


def test_many_missing_and_incomplete_ranks_take_a_line_each() -> None:
    run = large().run
    missing, incomplete = tuple(range(3, RANKS, 8)), dict.fromkeys(range(5, RANKS, 8), "no end")
    lost = replace(large(), run=replace(run, missing_ranks=missing, incomplete=incomplete))
    text = render(lost, DEFAULTS)
    assert "missing: 3, 11, ..., 16379 (2,048 ranks)" in text
    assert "incomplete: ranks 5, 13, ..., 16381 (2,048 ranks) (no end)" in text
    assert len(render_first_page(lost).splitlines()) <= 40
    assert not re.search(r"(\d+, ){20}", text), "no long list of numbers"
