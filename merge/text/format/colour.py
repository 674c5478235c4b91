"""Colours for a terminal: titles, the slow ranks, and warnings.

A line gets its coloured parts when it is made; its string has no colour codes.
"""

from __future__ import annotations

from typing import NamedTuple

from distprof.printable import printable

#: ANSI codes.
BOLD, RED, YELLOW = "1", "1;31", "33"


class Part(NamedTuple):
    """A coloured part of a line, or of a text that is folded into lines later."""

    start: int
    end: int
    code: str


class Line(str):
    """A line of the report with coloured ``parts``, in ascending order."""

    parts: tuple[Part, ...]

    def __new__(cls, text: str, parts: tuple[Part, ...] = ()) -> Line:
        line = super().__new__(cls, text)
        line.parts = parts
        return line


class ReportText(str):
    """The text of a whole report; ``lines`` are its lines with their colours."""

    lines: tuple[str, ...]

    def __new__(cls, lines: tuple[str, ...]) -> ReportText:
        text = super().__new__(cls, printable("\n".join(lines) + "\n"))
        text.lines = lines
        return text


def paint(text: str, code: str) -> Line:
    """Returns the whole line in one colour."""
    return Line(text, (Part(0, len(text), code),))


def coloured(text: str) -> str:
    """Returns a report with ANSI colours; other text unchanged."""
    if not isinstance(text, ReportText):
        return text
    return "\n".join(map(_coloured_line, text.lines)) + "\n"


def _coloured_line(line: str) -> str:
    found, done = "", 0
    for start, end, code in line.parts if isinstance(line, Line) else ():
        found += f"{printable(line[done:start])}\x1b[{code}m{printable(line[start:end])}\x1b[0m"
        done = end
    return found + printable(line[done:])
