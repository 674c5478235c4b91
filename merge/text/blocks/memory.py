"""The Memory block: what every rank holds, and who holds more or less than its cohort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from distprof.merge.quantities import NOT_AVAILABLE, byte_size
from distprof.merge.report import HOLDINGS, MemoryDifference, RankRow, Report
from distprof.merge.text.blocks.places import all_ranks
from distprof.merge.text.blocks.ranks import ALL_UP_TO
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.wording import rank_names

_DIFFERENCES_SHOWN = 8
_WHERE_PEAK = {"allocator": "of torch's allocator on the device", "rss": "of the process, all its memory"}


def memory_block(report: Report) -> Iterator[str]:
    """Lines of the block; none where no rank told what it holds, or why it could not."""
    rows = [row for row in report.ranks if row.parameter_bytes is not None]
    unknown: dict[str, list[int]] = {}
    for row in report.ranks:
        if row.memory_unknown:
            unknown.setdefault(row.memory_unknown, []).append(row.rank)
    if not rows and not unknown:
        return
    yield heading("Memory")
    if rows:
        yield from _known(rows, report)
    for reason, ranks in unknown.items():
        yield from wrapped(f"{rank_names(ranks)} hold what cannot be measured: {one_line(reason)}", "n/a: ", "  ")


def _known(rows: Sequence[RankRow], report: Report) -> Iterator[str]:
    peaks = {row.memory_source for row in rows if row.memory_source}
    where = " and ".join(_WHERE_PEAK.get(source, source) for source in sorted(peaks)) or "not seen"
    few = len(rows) <= ALL_UP_TO
    what = "each rank" if few else "each cohort's median"
    yield from wrapped(
        f"What {what} holds when the first timed iteration's optimizer has stepped, its own part of what is sharded;"
        f" optimizer state has the copies of parameters that it steps in; peak is {where}."
    )
    cells = [_cells(str(row.rank), [row]) for row in rows] if few else list(_by_cohort(rows))
    yield from table(["rank" if few else "ranks", *HOLDINGS], cells, left=[] if few else ["ranks"])
    yield from _differences(report.memory)


def _by_cohort(rows: Iterable[RankRow]) -> Iterator[list[str]]:
    cohorts: dict[int, list[RankRow]] = {}
    for row in rows:
        cohorts.setdefault(row.cohort, []).append(row)
    for members in list(cohorts.values())[:ALL_UP_TO]:
        yield _cells(all_ranks([row.rank for row in members]), members)
    if len(cohorts) > ALL_UP_TO:
        yield [f"{len(cohorts) - ALL_UP_TO} more in summary.json", *[""] * len(HOLDINGS)]


def _cells(name: str, rows: Sequence[RankRow]) -> list[str]:
    held = ([getattr(row, field) for row in rows] for field in HOLDINGS.values())
    known = ([value for value in values if value is not None] for values in held)
    return [name, *(byte_size(median(values)) if values else NOT_AVAILABLE for values in known)]


def _differences(found: Sequence[MemoryDifference]) -> Iterator[str]:
    for one in found[:_DIFFERENCES_SHOWN]:
        side = "above" if one.own_bytes > one.cohort_bytes else "below"
        apart = byte_size(abs(one.own_bytes - one.cohort_bytes))
        yield f"rank {one.rank}: {one.what} {byte_size(one.own_bytes)}, {apart} {side} its cohort's median"
    if len(found) > _DIFFERENCES_SHOWN:
        yield f"and {len(found) - _DIFFERENCES_SHOWN} more such differences in summary.json"
