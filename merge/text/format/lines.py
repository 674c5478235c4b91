"""Lines, tables and headings of the report: ASCII, at home in 120 columns, and safe to print."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from distprof.printable import printable

WIDTH = 118
LABEL_WIDTH = 72  # DeepSpeed's 70, and room for "rank" where it says GPU


def heading(title: str, dashes: int = 29) -> str:
    """A block's title between dashes, as DeepSpeed draws it."""
    return f"{'-' * dashes} {title} {'-' * dashes}"


def labelled_line(label: str, value: object) -> str:
    """One line of the Profile Summary: label, colon, value."""
    return f"{label + ':':<{LABEL_WIDTH}}  {value}".rstrip()


def wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """``text`` folded into the width, after ``first`` on its first line and ``rest`` on the others."""
    folded = textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return folded or [first.rstrip()]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """Fixed-width columns under their titles, numbers to the right; those titled in ``left`` to the left."""
    cells = [list(titles), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<" if title in left else ">" for title in titles]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]


def one_line(text: str) -> str:
    """``text`` from a shard without line breaks, safe to print and to put into a picture."""
    return printable(" ".join(text.split()))


def join_blocks(blocks: Iterable[Iterable[str]]) -> str:
    """Blocks of lines, an empty line between them, as one text that is safe to print."""
    return printable("\n\n".join("\n".join(lines) for lines in map(list, blocks) if lines) + "\n")
