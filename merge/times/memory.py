"""Ranks that hold most or least memory of their cohort: ranks of one role normally hold equal amounts."""

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
    """Returns the extremes of each cohort, the largest difference first; none in cohorts of fewer than three ranks."""
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
        apart = {rank: held - middle for rank, held in cohort.items() if _is_large(held - middle, middle)}
        for side in (1, -1):
            own = {rank: side * more for rank, more in apart.items() if side * more > 0}
            if len(cohort) >= _MIN_COHORT and own:
                rank = max(own, key=lambda rank: (own[rank], -rank))
                yield MemoryDifference(rank, what, cohort[rank], middle, len(own) - 1)


def _is_large(difference: float, middle: float) -> bool:
    return abs(difference) >= max(LEAST_BYTES, LEAST_SHARE * middle)
