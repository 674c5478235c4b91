"""Lines, tables and headings of the report: ASCII, within 120 columns, and safe to print."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from distprof.merge.text.format.colour import BOLD, Line, Part, ReportText, paint
from distprof.printable import printable

WIDTH = 118
LABEL_WIDTH = 72  # DeepSpeed's 70, and room for "rank" where it says GPU


def heading(title: str, dashes: int = 29) -> str:
    """Returns a block's title between dashes, as DeepSpeed draws it."""
    return paint(f"{'-' * dashes} {title} {'-' * dashes}", BOLD)


def labelled_line(label: str, value: object) -> str:
    """Returns a line of the Profile Summary: label, colon, value."""
    return f"{label + ':':<{LABEL_WIDTH}}  {value}".rstrip()


def wrapped(text: str, first: str = "", rest: str = "", parts: Sequence[Part] = (), width: int = WIDTH) -> list[str]:
    """Returns ``text`` folded into the width, after ``first`` on its first line and ``rest`` on the others.

    ``parts`` of the text are coloured on every line that they fall on.
    """
    folded = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return list(_coloured(folded, text, (len(first), len(rest)), parts)) or [first.rstrip()]


def _coloured(folded: Sequence[str], text: str, indents: tuple[int, int], parts: Sequence[Part]) -> Iterator[str]:
    """Yields the lines with the parts of ``text`` that they hold."""
    place = 0  # in the text, of what follows the indent
    for number, line in enumerate(folded):
        indent = indents[number > 0]
        place += len(text[place:]) - len(text[place:].lstrip())
        own = [(max(start, place), min(end, place + len(line) - indent), code) for start, end, code in parts]
        shift = indent - place
        yield Line(line, tuple(Part(start + shift, end + shift, code) for start, end, code in own if start < end))
        place += len(line) - indent


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """Returns columns of fixed width, aligned right; those whose titles are in ``left``, aligned left."""
    cells = [list(titles), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<" if title in left else ">" for title in titles]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]


def one_line(text: str) -> str:
    """Returns ``text`` from a shard without line breaks, safe to print and to use in a plot."""
    return printable(" ".join(text.split()))


def join_blocks(blocks: Iterable[Iterable[str]]) -> str:
    """Returns blocks of lines, an empty line between them, as one text that is safe to print."""
    filled = [lines for lines in map(list, blocks) if lines]
    spaced = [line for number, lines in enumerate(filled) for line in ([""] if number else []) + lines]
    return ReportText(tuple(spaced))
