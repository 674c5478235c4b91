"""Which ranks of a cohort stand out in a place: robustly, in most steps, with a clear line to all others.

excess over the others -> for each place the set of ranks that stand out, or nobody -> the finest place of each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.skew.excess import CohortExcess, standard_error
from distprof.merge.skew.step_times import FINE, MODULE, SUM, WHOLE, Place
from distprof.merge.skew.thresholds import (
    AT_LEAST,
    MARGIN,
    MIN_COHORT,
    MOST_ABOVE,
    MOST_OF_COHORT,
    PAIR_PERSISTENT,
    PAIR_SHARE,
    PERSISTENT,
    PHASE_FACTOR,
    PLACE_SHARE,
    SLOW_SHARE,
    STANDARD_ERRORS,
    STEP_SHARE,
)
from distprof.merge.stats import middle, nan_median
from distprof.plain import dataclass


@dataclass(frozen=True)
class Outlier:
    """A rank that stands out in one place."""

    rank: int
    place: Place
    excess_ns: float
    steps: int  # with at least half of that excess
    of_steps: int
    cohort: int
    cohort_ns: float
    error_ns: float = 0.0  # the standard error of the excess
    without_processor_waits: bool = False  # whether these were subtracted from all times
    processor_wait_ns: float = 0.0  # what it waits longer there: besides the excess, or, in a module, maybe in it


def outliers(excess: CohortExcess, iteration_ns: float) -> Iterator[Outlier]:
    """Yields the ranks that stand out, place by place."""
    for number in _notable_places(excess, iteration_ns):
        yield from _in_place(excess, number, _most_culprits(excess.size), iteration_ns)


def half_of_cohort(excess: CohortExcess, iteration_ns: float) -> list[Outlier]:
    """Returns the ranks that stand out together in one place and are too many: more than a third, at most half.

    Which part of the cohort is the normal one cannot be told then.
    """
    sets = [
        _in_place(excess, number, excess.size // 2, iteration_ns)
        for number in _notable_places(excess, iteration_ns)
        if excess.size >= MIN_COHORT
    ]
    too_many = [found for found in sets if len(found) > _most_culprits(excess.size)]
    least_ns = PLACE_SHARE * max((found[-1].excess_ns for found in too_many), default=0.0)
    enough = [found for found in too_many if found[-1].excess_ns >= least_ns]
    return min(enough, key=lambda found: (found[-1].place.level, -found[-1].excess_ns), default=[])


def detection_floor(excess: CohortExcess, iteration_ns: float, level: int) -> float | None:
    """Returns the excess from which on a rank would be named, in the noisiest place of a level, in ns; None without a
    place.

    That is the largest of: the share of the iteration; the standard errors; the margin to the next rank; and what lies
    above each other rank in most steps.
    """
    places = [number for number, place in enumerate(excess.times.places) if (place.level > MODULE) == (level > MODULE)]
    places = [number for number in places if not np.isnan(excess.median[number]).all()]
    if not places:
        return None
    share, persistent = _asked_of(excess.size)
    known = np.nan_to_num(excess.by_step[places], nan=-np.inf)
    above_each = _but_a_few(np.quantile(known, persistent, axis=2, method="higher"))
    margin = MARGIN * np.nanmax(np.nan_to_num(excess.median[places]), axis=1)
    floors = np.maximum.reduce([STANDARD_ERRORS * excess.error[places], margin, above_each])
    return max(share * iteration_ns, float(floors.max()))


def _asked_of(size: int) -> tuple[float, float]:
    """Returns the least share of the iteration and of the steps, for a cohort of this size."""
    return (SLOW_SHARE, PERSISTENT) if size >= MIN_COHORT else (PAIR_SHARE, PAIR_PERSISTENT)


def _most_culprits(size: int) -> int:
    return max(1, int(size * MOST_OF_COHORT))


def _notable_places(excess: CohortExcess, iteration_ns: float) -> list[int]:
    if excess.size < 2:
        return []
    share, _ = _asked_of(excess.size)
    highest = np.nan_to_num(excess.median, nan=-np.inf).max(axis=1, initial=-np.inf)
    found: list[int] = np.flatnonzero(highest >= share * iteration_ns).tolist()
    return found


def _in_place(excess: CohortExcess, number: int, most: int, iteration_ns: float) -> list[Outlier]:
    """Returns the largest set of at most so many ranks that stand out together in a place."""
    median = excess.median[number]
    order = np.argsort(-np.nan_to_num(median, nan=-np.inf), kind="stable")
    known = int(np.count_nonzero(~np.isnan(median)))
    if known < min(MIN_COHORT, excess.size):
        return []
    share, _ = _asked_of(excess.size)
    for count in range(min(most, known - 1), 0, -1):
        least, following = float(median[order[count - 1]]), float(median[order[count]])
        if least >= share * iteration_ns and least >= MARGIN * max(following, 0.0):
            found = _passing(excess, number, order[:count], order[count:known], iteration_ns)
            if len(found) == count:
                return found
    return []


def _passing(
    excess: CohortExcess, number: int, culprits: IntArray, others: IntArray, iteration_ns: float
) -> list[Outlier]:
    """Returns those of the culprits that are above the others by enough, and in enough steps."""
    times, place = excess.times.times[number], excess.times.places[number]
    _, persistent = _asked_of(excess.size)
    normal = nan_median(times[others].T)
    error = float(standard_error(excess.by_step[number, others]))
    found = []
    for column in culprits.tolist():
        above = (times[column] - normal)[~np.isnan(times[column])]
        known = len(above)
        size = float(middle(above))
        steps = int(np.count_nonzero(above >= STEP_SHARE * size))
        cohort_ns = float(np.nanmedian(normal))
        one = Outlier(excess.times.ranks[column], place, size, steps, known, excess.size, cohort_ns, error)
        in_steps = min(steps, _steps_above(times[column], times[others]))
        if in_steps >= persistent * known and is_large(size, one, iteration_ns):
            found.append(one)
    return found


def is_large(excess_ns: float, of: Outlier, iteration_ns: float) -> bool:
    """Returns whether an excess is large enough to call the rank slow in the place of an outlier."""
    share, _ = _asked_of(of.cohort)
    return excess_ns >= max(share * iteration_ns, STANDARD_ERRORS * of.error_ns)


def _steps_above(times: FloatArray, others: FloatArray) -> int:
    """Returns the number of steps in which a rank with (steps) times is above an other one with (ranks, steps), for the
    one that it is above least often, but for a few of many.
    """
    known = ~np.isnan(times)
    not_above = np.count_nonzero(others[:, known] >= times[known], axis=1)
    return int(np.count_nonzero(known) - _but_a_few(not_above))


def _but_a_few(by_rank: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the largest value over the last axis, but for a few of many."""
    place = by_rank.shape[-1] - 1 - int(MOST_ABOVE * by_rank.shape[-1])
    largest: npt.NDArray[Any] = np.partition(by_rank, place, axis=-1)[..., place]
    return largest


def largest_excess(excess: CohortExcess, rank: int) -> Outlier | None:
    """Returns the module or phase in which a rank of the cohort is furthest above the others, whether it stands out or
    not; None where it is above them in none.
    """
    column = excess.times.ranks.index(rank)
    known = [
        number
        for number, place in enumerate(excess.times.places)
        if place.level == FINE and excess.median[number, column] > 0
    ]
    if not known:
        return None
    number = max(known, key=lambda place: float(excess.median[place, column]))
    size, by_step = float(excess.median[number, column]), excess.by_step[number, column]
    steps = int(np.count_nonzero(by_step >= STEP_SHARE * size))
    cohort_ns = float(np.nanmedian(np.delete(excess.times.times[number], column, axis=0)))
    every = int(np.count_nonzero(~np.isnan(by_step)))
    return Outlier(rank, excess.times.places[number], size, steps, every, excess.size, cohort_ns)


def finest_places(found: Sequence[Outlier]) -> list[Outlier]:
    """Returns for each rank where it is slow, the largest excess first: the finest place with a good share of its
    largest excess.
    """
    by_rank: dict[int, list[Outlier]] = {}
    for outlier in found:
        by_rank.setdefault(outlier.rank, []).append(outlier)
    chosen = [_finest(places) for places in by_rank.values()]
    return sorted(chosen, key=lambda outlier: (-outlier.excess_ns, outlier.rank))


def _finest(found: Sequence[Outlier]) -> Outlier:
    largest = max(found, key=lambda outlier: outlier.excess_ns)
    at_least = max(outlier.excess_ns - AT_LEAST * outlier.error_ns for outlier in found)
    whole = next((outlier for outlier in found if outlier.place.level == WHOLE), None)
    enough = [
        outlier
        for outlier in found
        if outlier.excess_ns >= PLACE_SHARE * (at_least if outlier.place.level <= MODULE else largest.excess_ns)
        and (outlier.place.level != SUM or whole is None or _slowdown(outlier) >= PHASE_FACTOR * _slowdown(whole))
    ]
    return min(enough, key=lambda outlier: (outlier.place.level, -outlier.excess_ns))


def _slowdown(outlier: Outlier) -> float:
    return outlier.excess_ns / max(outlier.cohort_ns, 1.0)
