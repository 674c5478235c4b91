"""Ranks that hold more or less memory than their cohort: ranks of one role normally hold equal amounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from distprof.merge.analysis import Analysis
from distprof.merge.report import HOLDINGS, MemoryDifference, RankRow
from distprof.merge.times.rank_rows import rank_rows

#: Smaller differences are ignored: they are chance, or shards of unequal sizes.  Share of the cohort's median, bytes.
LEAST_SHARE = 0.05
LEAST_BYTES = 1 << 20
_MIN_COHORT = 3


def memory_section(analysis: Analysis) -> tuple[MemoryDifference, ...]:
    """Returns the differences between ranks, the largest first."""
    return memory_differences(rank_rows(analysis))


def memory_differences(rows: Sequence[RankRow]) -> tuple[MemoryDifference, ...]:
    """Returns the differences, the largest first; none in cohorts of fewer than three ranks."""
    found = [one for what, field in HOLDINGS.items() for one in _differing(rows, what, field)]
    return tuple(sorted(found, key=lambda one: (-abs(one.own_bytes - one.cohort_bytes), one.rank)))


def _differing(rows: Sequence[RankRow], what: str, field: str) -> Iterator[MemoryDifference]:
    cohorts: dict[int, dict[int, int]] = {}
    for row in rows:
        held = getattr(row, field)
        if held is not None:
            cohorts.setdefault(row.cohort, {})[row.rank] = held
    for cohort in cohorts.values():
        middle = median(cohort.values())
        for rank, held in cohort.items():
            if len(cohort) >= _MIN_COHORT and abs(held - middle) >= max(LEAST_BYTES, LEAST_SHARE * middle):
                yield MemoryDifference(rank, what, held, middle)
