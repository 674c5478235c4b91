"""The Ranks block: one row for each rank, with its own medians."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from distprof.merge.quantities import TimeUnit, byte_size, common_unit, percentage
from distprof.merge.report import RankRow, Report
from distprof.merge.text.format.colour import RED, paint
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import phase_title
from distprof.records import PHASES

ALL_UP_TO = 32
SHOWN_OF_MORE = 16
_HOST_WIDTH = 20
_OUTSIDE = "  Outside: between modules, or between modules and backward.  Other: in no other phase."


def ranks_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block: every rank, or the slowest of many."""
    slow = {one.rank for one in report.verdict.ranks.named}
    rows = _shown(report.ranks, slow)
    unit = common_unit(row.iteration_ns for row in rows)
    yield heading("Ranks")
    marked = f"; * marks the slow {'ranks' if len(slow) > 1 else 'rank'}" if slow else ""
    yield from wrapped(f"Medians over each rank's timed steps, in {unit.name}{marked}.{_OUTSIDE}")
    few = len(report.ranks) <= ALL_UP_TO
    axes = [axis for axis, size in report.topology.sizes.items() if size > 1 and (few or axis != "mp")] or ["dp"]
    phases = [phase for phase in PHASES if any(row.phases_ns.get(phase) != 0 for row in report.ranks)]
    used = _utilizations(report)
    titles = [
        "rank",
        *axes,
        "host",
        "iteration",
        *map(_title, phases),
        *used,
        "peak memory" if few else "peak",
        "steps",
    ]
    hosts = shortened_apart([one_line(row.host) for row in rows], _HOST_WIDTH)
    cells = [_cells(row, axes, hosts, phases, used.values(), unit) for row in rows]
    for row, line in zip(rows, cells, strict=True):
        line[0] = f"* {row.rank}" if row.rank in slow else line[0]
    head, *lines = table(titles, cells, left=["host"])
    yield head
    yield from (paint(line, RED) if row.rank in slow else line for row, line in zip(rows, lines, strict=True))
    if len(rows) < len(report.ranks):
        yield f"The slowest {len(rows)} ranks; the other {len(report.ranks) - len(rows)} are in summary.json."


def _title(phase: str) -> str:
    return phase if phase == "outside" else phase_title(phase)


def _utilizations(report: Report) -> dict[str, str]:
    """Returns the columns with their fields; HFU only where it differs from MFU."""
    mfu, hfu = report.utilization.mfu, report.utilization.hfu
    if mfu is None:
        return {}
    return {"MFU": "mfu", "HFU": "hfu"} if mfu != hfu else {"MFU": "mfu"}


def _cells(
    row: RankRow,
    axes: Sequence[str],
    hosts: Mapping[str, str],
    phases: Sequence[str],
    utilizations: Iterable[str],
    unit: TimeUnit,
) -> list[str]:
    return [
        str(row.rank),
        *(str(row.coordinates.get(axis, "-")) for axis in axes),
        hosts[one_line(row.host)],
        unit.format(row.iteration_ns),
        *(unit.format(row.phases_ns.get(phase)) for phase in phases),
        *(percentage(getattr(row, field), 1) for field in utilizations),
        byte_size(row.peak_memory_bytes),
        f"{row.steps}{'' if row.complete else ' (incomplete)'}",
    ]


def _shown(rows: Sequence[RankRow], slow: Collection[int]) -> Sequence[RankRow]:
    """Returns all ranks; of many, the slow ones, then those with the longest iterations."""
    if len(rows) <= ALL_UP_TO:
        return rows
    return sorted(rows, key=lambda row: (row.rank not in slow, -(row.iteration_ns or 0), row.rank))[:SHOWN_OF_MORE]
