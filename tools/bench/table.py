"""Formats tables in Markdown: medians with their quartiles."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MB = 1e6


@dataclass(frozen=True)
class Table:
    """``notes``: paragraphs below the table."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.head, tuple("---" if column == 0 else "---:" for column in range(len(self.head))), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join((f"## {self.title}", table, *self.notes)) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Formats the median and the quartiles: ``1.043 (1.031 ... 1.058)``."""
    if len(values) < 2:
        return f"{values[0]:,.{digits}f}"
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{median:,.{digits}f} ({low:,.{digits}f} … {high:,.{digits}f})"
