"""The Memory block: the memory of every rank, and ranks that hold more or less than their cohort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from distprof.merge.quantities import NOT_AVAILABLE, byte_size
from distprof.merge.report import HOLDINGS, MemoryDifference, RankRow, Report
from distprof.merge.text.blocks.ranks import ALL_UP_TO, SHOWN_OF_MORE
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.wording import number_series, pluralise
from distprof.rank_names import rank_names

_DIFFERENCES_SHOWN = 8
_PEAK_OF = {"allocator": "torch's allocator on the device", "rss": "the whole process"}


def memory_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where no rank recorded its memory, or why it could not."""
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
        yield from wrapped(f"memory of {rank_names(ranks)}: {one_line(reason)}", "n/a: ", "  ")


def _known(rows: Sequence[RankRow], report: Report) -> Iterator[str]:
    peaks = {row.memory_source for row in rows if row.memory_source}
    peak_of = " and ".join(_PEAK_OF.get(source, source) for source in sorted(peaks))
    few = len(rows) <= ALL_UP_TO
    whose = "each rank" if few else "each cohort, as the median of its ranks"
    yield from wrapped(
        f"Memory of {whose}, after the optimizer step of the first timed iteration.  Sharded tensors count with the"
        " rank's own shard.  Optimizer state includes the copies of parameters that the optimizer updates, such as fp32"
        f" master weights.  Peak is {f'that of {peak_of}' if peak_of else 'not measured'}."
    )
    cells = [_cells(str(row.rank), [row]) for row in rows] if few else list(_by_cohort(rows))
    yield from table(["rank" if few else "ranks", *HOLDINGS], cells, left=[] if few else ["ranks"])
    yield from _differences(report.memory)


def _by_cohort(rows: Iterable[RankRow]) -> Iterator[list[str]]:
    """Yields a line for each cohort; of many those with the largest and the smallest peaks."""
    cohorts: dict[int, list[RankRow]] = {}
    for row in rows:
        cohorts.setdefault(row.cohort, []).append(row)
    every = list(cohorts.values())
    if len(every) > ALL_UP_TO:
        every.sort(key=_median_peak, reverse=True)
        half = SHOWN_OF_MORE // 2
        between = f"{len(every) - SHOWN_OF_MORE} with peaks between, in summary.json"
        yield from (_of_cohort(members) for members in every[:half])
        yield [between, *[""] * len(HOLDINGS)]
        every = every[-half:]
    yield from map(_of_cohort, every)


def _of_cohort(members: Sequence[RankRow]) -> list[str]:
    return _cells(number_series([row.rank for row in members]), members)


def _median_peak(members: Iterable[RankRow]) -> float:
    return median(row.peak_memory_bytes or 0 for row in members)


def _cells(name: str, rows: Sequence[RankRow]) -> list[str]:
    held = ([getattr(row, field) for row in rows] for field in HOLDINGS.values())
    known = ([value for value in values if value is not None] for values in held)
    return [name, *(byte_size(median(values)) if values else NOT_AVAILABLE for values in known)]


def _differences(found: Sequence[MemoryDifference]) -> Iterator[str]:
    for one in found[:_DIFFERENCES_SHOWN]:
        side = "above" if one.own_bytes > one.cohort_bytes else "below"
        apart = byte_size(abs(one.own_bytes - one.cohort_bytes))
        others = f" ({pluralise(one.others, 'more rank')} {side} by much)" if one.others else ""
        yield f"rank {one.rank}: {one.what} {byte_size(one.own_bytes)}, {apart} {side} its cohort's median{others}"
    if len(found) > _DIFFERENCES_SHOWN:
        yield f"and {len(found) - _DIFFERENCES_SHOWN} more such differences in summary.json"
