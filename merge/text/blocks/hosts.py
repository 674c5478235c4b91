"""The Hosts block: one row for each host, where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import TimeUnit, byte_size, common_unit
from distprof.merge.report import HostRow, Report
from distprof.merge.text.format.colour import RED, paint
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import pluralise
from distprof.rank_names import number_spans

ALL_UP_TO = 32
SHOWN_OF_MORE = 16
_WIDTH = 24
_RANKS_WIDTH = 24


def hosts_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none for a single host."""
    if len(report.hosts) < 2:
        return
    rows = _shown(report.hosts)
    unit = common_unit(row.iteration_ns for row in rows)
    own = any(row.own_ns is not None for row in rows)
    yield heading("Hosts")
    meaning = "  Own time is the iteration without waits in collectives." if own else ""
    yield from wrapped(f"Medians over the ranks of each host, in {unit.name}; peak memory is the largest.{meaning}")
    titles = ["host", "ranks", "slow", "iteration", *(["own time", "wait"] if own else []), "data wait", "peak memory"]
    names = shortened_apart([one_line(row.host) for row in rows], _WIDTH)
    head, *lines = table(titles, [_cells(row, names[one_line(row.host)], unit, own=own) for row in rows], ["host"])
    yield head
    yield from (paint(line, RED) if row.slow else line for row, line in zip(rows, lines, strict=True))
    if len(rows) < len(report.hosts):
        left = pluralise(len(report.hosts) - len(rows), "host")
        yield f"The {len(rows)} with the most slow ranks, then with the longest own time; {left} more in summary.json."


def _cells(row: HostRow, name: str, unit: TimeUnit, *, own: bool) -> list[str]:
    spans = number_spans(row.ranks)
    return [
        name,
        spans if len(spans) <= _RANKS_WIDTH else pluralise(len(row.ranks), "rank"),
        f"{len(row.slow)} of {len(row.ranks)}" if row.slow else "-",
        unit.format(row.iteration_ns),
        *([unit.format(row.own_ns), unit.format(row.wait_ns)] if own else []),
        unit.format(row.data_ns),
        byte_size(row.peak_memory_bytes),
    ]


def _shown(rows: Sequence[HostRow]) -> Sequence[HostRow]:
    """Returns all hosts; of many, those with slow ranks and those that take longest."""
    if len(rows) <= ALL_UP_TO:
        return rows
    return sorted(rows, key=lambda row: (-len(row.slow), -(row.own_ns or row.iteration_ns or 0)))[:SHOWN_OF_MORE]
