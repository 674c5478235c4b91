"""Draws the table of ``distprof top`` with rich, once or again and again in the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distprof.commands.live.rows import COLUMNS, RIGHT, Row, heading, rows
from distprof.launcher.daemon.job_view import JobView

_STYLES = {"stuck": "bold red", "dead": "bold red", "slow": "yellow", "silent": "yellow", "ended": "dim"}
_WIDTH = 160
#: Columns that are left out while no row has anything there: only timed iterations do.
_SELDOM = frozenset({"module", "collective"})


def text(job: JobView, sort: str) -> str:
    """Returns the table as plain text."""
    console = Console(file=StringIO(), width=_WIDTH, color_system=None)
    console.print(_drawn(job, sort))
    file = console.file
    assert isinstance(file, StringIO)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@contextmanager
def live() -> Iterator[Callable[[JobView, str], None]]:
    """Yields a function that shows the table in place of the last one, on the terminal."""
    with Live(auto_refresh=False) as screen:
        yield lambda job, sort: screen.update(_drawn(job, sort), refresh=True)


def _is_known(found: Sequence[Row], place: int) -> bool:
    return any(row.cells[place] != "-" for row in found)


def _drawn(job: JobView, sort: str) -> Group:
    table = Table(box=None, pad_edge=False)
    found = rows(job, sort)
    places = [place for place, column in enumerate(COLUMNS) if column not in _SELDOM or _is_known(found, place)]
    for column in (COLUMNS[place] for place in places):
        table.add_column(column, justify="right" if column in RIGHT else "left", overflow="ellipsis", no_wrap=True)
    for row in found:
        style = _STYLES.get(row.mark, "")
        table.add_row(*(Text(row.cells[place]) for place in places), style=style)  # names from elsewhere are not markup
    return Group(Text(heading(job)), table)
