"""Draws the table of ``distprof top`` with rich, once or again and again in the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distprof.commands.live.fitting import fitting
from distprof.commands.live.rows import COLUMNS, RIGHT, heading, rows
from distprof.launcher.daemon.job_view import JobView

_STYLES = {"stuck": "bold red", "dead": "bold red", "slow": "yellow", "silent": "yellow", "ended": "dim"}
_WIDTH = 160
#: Columns that are left out while no row has anything there: only timed iterations do.
_SELDOM = frozenset({"module", "collective"})


def text(job: JobView, sort: str) -> str:
    """Returns the table as plain text."""
    console = Console(file=StringIO(), width=_WIDTH, color_system=None)
    console.print(drawn(job, sort, _WIDTH))
    file = console.file
    assert isinstance(file, StringIO)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@contextmanager
def live() -> Iterator[Callable[[JobView, str], None]]:
    """Yields a function that shows the table in place of the last one, on the terminal."""
    with Live(auto_refresh=False) as screen:
        yield lambda job, sort: screen.update(drawn(job, sort, screen.console.width), refresh=True)


def drawn(job: JobView, sort: str, room: int) -> Group:
    """Returns the table with what fits into ``room`` characters."""
    found = rows(job, sort)
    widths = {
        column: max(cell_len(text) for text in (column, *(row.cells[place] for row in found)))
        for place, column in enumerate(COLUMNS)
        if column not in _SELDOM or any(row.cells[place] != "-" for row in found)
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    chosen = fitting(widths, room)
    for column, width in chosen.items():
        side: JustifyMethod = "right" if column in RIGHT else "left"
        table.add_column(column, justify=side, overflow="ellipsis", no_wrap=True, width=width)
    for row in found:
        cells = dict(zip(COLUMNS, row.cells, strict=True))
        # Names from elsewhere are not markup.
        table.add_row(*(Text(cells[column]) for column in chosen), style=_STYLES.get(row.mark, ""))
    return Group(Text(heading(job)), table)
