"""How long each place takes on each rank when little disturbs it: a low quantile over the steps.

Other jobs on a machine only add time, and not to all steps alike, so that a low quantile is disturbed least.  What
slows down a whole step of a rank (a busy neighbour core, a lower clock) is taken off before: a low quantile of the
rank's modules, each relative to its own level.  Times are compared as logarithms.

    (places, ranks, steps) of each cohort -> relative to the modules of the same step -> level and its error
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.skew.step_times import FINE, StepTimes

#: (module label or phase, phase)
PlaceKey = tuple[str, str]
MODULE_PHASES = ("forward", "backward")
#: The share of the steps that are faster than the level.
QUANTILE = 0.25
#: The speed of a step is that of the module which is slower, each relative to its own level, than so many others.
_SPEED_QUANTILE = 0.3
#: The speed of a step is known from so many modules on.
_LEAST_MODULES = 6
#: With fewer steps the error of a level is not known.
LEAST_STEPS = 8
#: The share of fastest steps, and how far above them a level lies, as a logarithm: from the first value on it is less
#: certain, and from the second on it is no level.
_FASTEST, _APART, _MOST_APART = 0.05, 0.1, 0.3
#: No clock is better than this: the standard error of a level, relative to it.
_LEAST_ERROR = 0.001


@dataclass(frozen=True, eq=False)
class Levels:
    """Logarithms of ns, and the squares of their standard errors: (places, ranks), NaN where a rank has no time."""

    places: tuple[PlaceKey, ...]
    ranks: tuple[int, ...]
    level: FloatArray
    variance: FloatArray

    def of(self, places: Sequence[PlaceKey], ranks: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """Returns the levels and variances of these places and ranks."""
        row, column = ({key: at for at, key in enumerate(keys)} for keys in (self.places, self.ranks))
        cells = np.ix_([row.get(place, -1) for place in places], [column.get(rank, -1) for rank in ranks])
        padded = (np.pad(table, (0, 1), constant_values=np.nan) for table in (self.level, self.variance))
        level, variance = (table[cells] for table in padded)
        return level, variance


def module_levels(cohorts: Iterable[StepTimes]) -> Levels:
    """Returns the levels of the modules of all cohorts, in forward and backward."""
    found = [_of_cohort(cohort) for cohort in cohorts if _module_rows(cohort) and cohort.steps]
    places = tuple(dict.fromkeys(place for own in found for place in own.places))
    ranks = tuple(rank for own in found for rank in own.ranks)
    level, variance = np.full((2, len(places), len(ranks)), np.nan)
    row, column = {place: at for at, place in enumerate(places)}, {rank: at for at, rank in enumerate(ranks)}
    for own in found:
        cells = np.ix_([row[place] for place in own.places], [column[rank] for rank in own.ranks])
        level[cells], variance[cells] = own.level, own.variance
    return Levels(places, ranks, level, variance)


def _of_cohort(cohort: StepTimes) -> Levels:
    rows = _module_rows(cohort)
    logs = _logarithms(cohort.times[rows])
    seen = [not np.isnan(table).all() for table in logs]
    keys = [cohort.places[row] for row, is_seen in zip(rows, seen, strict=True) if is_seen]
    places, logs = tuple((key.subject, key.phase) for key in keys), relative_to_speed(logs[seen])
    return Levels(places, cohort.ranks, low_quantile(logs), squared_error(logs))


def _module_rows(cohort: StepTimes) -> list[int]:
    return [row for row, place in enumerate(cohort.places) if place.level == FINE and place.phase in MODULE_PHASES]


def _logarithms(times: FloatArray) -> FloatArray:
    """Returns the logarithms of (places, ranks, steps), NaN where no time was seen.

    A rank that kept no steps of a place has its median in all of them, which is no level; where most ranks kept none,
    the place is large on some ranks only, and is left out.
    """
    logs = np.log(np.where(times > 0, times, np.nan))
    same = np.fmax.reduce(times, axis=2) == np.fmin.reduce(times, axis=2)
    unkept = same & ~same.all(axis=1, keepdims=True)
    some_ranks = unkept.mean(axis=1, keepdims=True) > 0.5
    found: FloatArray = np.where((unkept | some_ranks)[:, :, None], np.nan, logs)
    return found


def relative_to_speed(logs: FloatArray) -> FloatArray:
    """Returns (places, ranks, steps) without the speed of each step, which all places of a rank have in common.

    Interrupted modules say nothing about it, and they are the slow ones.
    """
    apart = np.moveaxis(logs - low_quantile(logs)[:, :, None], 0, -1)
    known = np.count_nonzero(~np.isnan(apart), axis=-1)
    speed = quantiles(apart, np.full(known.shape, _SPEED_QUANTILE))
    return logs - np.where(known >= _LEAST_MODULES, speed, 0.0)


def low_quantile(logs: FloatArray) -> FloatArray:
    """Returns the level of each row of steps; NaN where there is none."""
    return quantiles(logs, np.full(logs.shape[:-1], QUANTILE))


def squared_error(logs: FloatArray) -> FloatArray:
    """Returns the squares of the levels' standard errors, by order statistics: the number of steps below a quantile is
    binomial, and the steps at one standard deviation of it on each side are that far apart.

    Slow steps above them do not count.  NaN where there are too few steps, and where nearly all are interrupted: the
    fastest ones are much faster than the level, so that this is no time of the module.
    """
    known = np.count_nonzero(~np.isnan(logs), axis=-1)
    aside = np.sqrt(QUANTILE * (1 - QUANTILE) / np.maximum(known, 1))
    low, high = (quantiles(logs, np.clip(QUANTILE + side * aside, 0, 1)) for side in (-1, 1))
    apart = low_quantile(logs) - quantiles(logs, np.full(known.shape, _FASTEST))
    disturbed = np.maximum(apart - _APART, 0) / 2
    found = np.maximum((high - low) / 2, _LEAST_ERROR) ** 2 + disturbed**2
    return np.where((known >= LEAST_STEPS) & (apart < _MOST_APART), found, np.nan)


def quantiles(values: FloatArray, share: FloatArray) -> FloatArray:
    """Returns a quantile of each row, of those values that are not NaN, interpolated."""
    ordered = np.sort(values, axis=-1)  # NaN goes last
    last = np.maximum(np.count_nonzero(~np.isnan(values), axis=-1) - 1, 0)
    place = share * last
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, last)
    below, above = (np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0] for at in (low, high))
    found: FloatArray = below + (place - low) * (above - below)
    return found
