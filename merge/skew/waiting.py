"""Which of the ranks that stand out may only wait for another one, where it is not known who waited.

A rank that waits in a collective of a small group is above the median of its cohort as well, in the module that holds
the collective.  Then the cause is the one of the group, or the other one of two, that has its excess elsewhere.  In a
group of unknown purpose it may be any member: the cause is hidden where most other ranks wait in the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.analysis import Analysis
from distprof.merge.collectives.own_times import collectives_unjoined
from distprof.merge.skew.excess import CohortExcess
from distprof.merge.skew.stragglers import Outlier, largest_excess
from distprof.merge.skew.thresholds import MIN_COHORT, STEP_SHARE, WAITER_SHARE
from distprof.plain import dataclass


@dataclass(frozen=True)
class Waiting:
    """Ranks of which one is slow and the others may wait for it; ``axis`` is that of their group, where it is known."""

    ranks: tuple[Outlier, ...]
    axis: str


def may_wait(analysis: Analysis, named: Sequence[Outlier], cohorts: Sequence[CohortExcess]) -> Waiting | None:
    """Returns the ranks among which the cause of the largest excess is; None where it is that rank's own."""
    worst, stand_out = named[0], {one.rank: one for one in named}
    cohort_of = {rank: excess for excess in cohorts for rank in excess.times.ranks}
    for axis, group, hidden in _groups(analysis, worst.rank, cohort_of[worst.rank]):
        others = [
            other
            for rank in group
            if rank != worst.rank
            and rank in cohort_of
            and (other := stand_out.get(rank) or largest_excess(cohort_of[rank], rank)) is not None
        ]
        unknown = hidden and worst.cohort >= MIN_COHORT and worst.place.subject != worst.place.phase
        causes = [other for other in others if unknown or _may_be_the_cause(other, worst)]
        if causes:
            ranks = sorted([worst, *causes], key=lambda one: (-one.excess_ns, one.rank))
            return Waiting(tuple(ranks), axis)
    return None


def _groups(analysis: Analysis, rank: int, excess: CohortExcess) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Yields the groups whose other ranks ``rank`` may wait for without most of its cohort waiting as well: their axis,
    their ranks, and whether any rank may be the cause, wherever it has its excess.
    """
    timed = list(analysis.timed_windows)
    yield from ((axis, group, False) for axis, group in analysis.layout.groups(rank, timed).items())
    unknown = [group for of_size in analysis.unknown_groups.values() for group in of_size if rank in group]
    met = tuple(sorted({other for group in unknown for other in group}))
    pair = excess.times.ranks if excess.size < MIN_COHORT else ()
    if met or pair:
        yield "", tuple(sorted({*met, *pair})), True
    if collectives_unjoined(analysis):
        yield "", tuple(timed), False


def _may_be_the_cause(other: Outlier, worst: Outlier) -> bool:
    elsewhere = other.place != worst.place
    in_most_steps = other.steps >= STEP_SHARE * other.of_steps
    return elsewhere and in_most_steps and other.excess_ns >= WAITER_SHARE * worst.excess_ns
