"""Colour: only the parts of a line that have one, without changes of the text."""

from __future__ import annotations

import re

from support.reports import report_of

from distprof.merge.text import TextOptions, render
from distprof.merge.text.format.colour import RED, YELLOW, Part, coloured
from distprof.merge.text.format.lines import WIDTH, join_blocks, wrapped


def painted(text: str) -> list[tuple[str, str]]:
    """Returns (code, words) of the coloured parts, in order."""
    return re.findall(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", coloured(text))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", coloured(text))


def test_colour_changes_no_text() -> None:
    text = render(report_of(dp=4, tp=2, slow_rank=5, layers=2), TextOptions())
    assert plain(text) == text
    assert coloured(str(text)) == text, "other text is unchanged"


def test_titles_slow_rank_and_verdict_are_coloured() -> None:
    report = report_of(dp=4, tp=2, slow_rank=5, layers=2)
    found = painted(render(report, TextOptions()))
    assert len([words for code, words in found if code == "1" and words.startswith("-----")]) >= 5
    red = [words for code, words in found if code == RED]
    assert [words.split()[:2] for words in red[1:]] == [["*", "5"]]
    assert red[0] == "slowest: rank 5, forward of blocks.1.moe.router:"


def test_nothing_is_red_without_a_slow_rank() -> None:
    assert [code for code, _ in painted(render(report_of(dp=4), TextOptions())) if code == RED] == []


def test_a_coloured_part_continues_on_the_next_line() -> None:
    text = "word " * 40
    lines = wrapped(text, "note: ", "  ", [Part(50, 150, YELLOW)])
    assert len(lines) == 2 and all(len(line) <= WIDTH for line in lines)
    found = painted(join_blocks([lines]))
    assert " ".join(words.strip() for _, words in found) == text[50:150].strip()


def test_control_characters_in_a_line_are_printed_safely() -> None:
    lines = wrapped("bad\x1b[31m word", parts=[Part(0, 3, RED)])
    assert "\x1b[31m" not in coloured(join_blocks([lines]))
