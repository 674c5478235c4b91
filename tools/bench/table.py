"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MB = 1e6


@dataclass(frozen=True)
class Table:
    """``notes``: paragraphs below the table.  ``pays`` and ``saves``: what a user does by it, for the page's begin."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    pays: tuple[str, ...] = ()
    saves: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.head, tuple("---" if column == 0 else "---:" for column in range(len(self.head))), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join((f"## {self.title}", table, *self.notes)) + "\n"
