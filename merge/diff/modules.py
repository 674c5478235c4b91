"""The changes of modules between two runs: rank by rank where both runs have the same ranks.

Of repeated runs, the first ones are compared with each other, the second ones, and so on.

levels of both runs -> differences (places, ranks) -> effects -> changes with bounds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.effects import Effects, place_effects
from distprof.merge.diff.levels import Levels, PlaceKey
from distprof.merge.diff.noise import Bounds
from distprof.merge.load.self_times import KEPT_SHARE
from distprof.merge.report import Report
from distprof.merge.stats import nan_mean

#: Modules below this share of the iteration are not compared: a short time is mostly noise.
_LEAST_SHARE = 0.005


@dataclass(frozen=True)
class Change:
    """One place: its times, its relative change, and bounds of that; None: the noise is not known."""

    place: PlaceKey
    first_ns: float
    second_ns: float
    change: float  # of a module: beyond what modules have in common
    bounds: Bounds | None


@dataclass(frozen=True, eq=False)
class ModuleComparison:
    """The modules that are compared, their levels in both runs (means of ranks, logarithms), and their changes."""

    places: tuple[PlaceKey, ...]
    first: FloatArray
    second: FloatArray
    effects: Effects

    def changes(self) -> Iterator[Change]:
        """Yields the change of each module."""
        for row, place in enumerate(self.places):
            change, bound = float(self.effects.change[row]), float(self.effects.bound[row])
            if not np.isnan(change):
                times_ns = exp(self.first[row]), exp(self.second[row])
                yield Change(place, *times_ns, exp(change) - 1, bounds_around(change, bound))

    @property
    def noise(self) -> float | None:
        """The bound of a middling module, None where no noise is known."""
        known = self.effects.bound[~np.isnan(self.effects.bound)]
        return float(np.median(known)) if len(known) else None


def bounds_around(change: float, bound: float) -> Bounds | None:
    """Returns the bounds of a logarithmic change."""
    if np.isnan(bound):
        return None
    return Bounds(exp(change) - 1, exp(change - bound) - 1, exp(change + bound) - 1)


def compare_modules(
    first: Sequence[Levels],
    second: Sequence[Levels],
    iterations_ns: tuple[float, float],
    classes: Mapping[str, str],
) -> ModuleComparison:
    """Returns the comparison of the modules that all runs timed, and that take a good part of an iteration of one side.

    ``first`` and ``second`` have the levels of each run of both sides, which are compared one by one.  ``classes`` has
    the class of each module, by its label.
    """
    large = {
        place
        for runs, iteration_ns in zip((first, second), iterations_ns, strict=True)
        for levels in runs
        for place in _large(levels, _LEAST_SHARE * iteration_ns)
    }
    timed = large.intersection(*(levels.places for levels in (*first, *second)))
    places = tuple(place for place in first[0].places if place in timed)
    pairs = [_same_ranks(one, other, places) for one, other in zip(first, second, strict=True)]
    before, variance, after, other_variance = (
        np.concatenate(tables, axis=1) for tables in zip(*((*one, *other) for one, other in pairs), strict=True)
    )
    kinds = [classes.get(label, label) for label, _ in places]
    pair = np.repeat(np.arange(len(pairs)), [one[0].shape[1] for one, _ in pairs])
    effects = place_effects(after - before, variance + other_variance, kinds, pair)
    return ModuleComparison(places, nan_mean(before), nan_mean(after), effects)


def _large(levels: Levels, least_ns: float) -> Iterator[PlaceKey]:
    for place, level in zip(levels.places, nan_mean(levels.level).tolist(), strict=True):
        if not np.isnan(level) and exp(level) >= least_ns:
            yield place


def _same_ranks(
    first: Levels, second: Levels, places: tuple[PlaceKey, ...]
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Returns (levels, variances) of both runs: of each rank, or of all ranks together where the ranks are others."""
    if set(first.ranks) == set(second.ranks):
        return first.of(places, first.ranks), second.of(places, first.ranks)
    return _together(first.of(places, first.ranks)), _together(second.of(places, second.ranks))


def _together(tables: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    level, variance = tables
    ranks = np.count_nonzero(~np.isnan(level), axis=1, keepdims=True)
    return nan_mean(level)[:, None], nan_mean(variance)[:, None] / np.maximum(ranks, 1)


def unkept_changes(
    comparison: ModuleComparison, levels: tuple[Levels, Levels], reports: tuple[Report, Report]
) -> Iterator[Change]:
    """Yields the changes of modules whose steps one run did not keep: it took at most :data:`KEPT_SHARE` there.

    It counts as that if the other run is above it beyond the noise, and the module is left out otherwise.
    """
    noise = comparison.noise
    if noise is None:
        return
    known = [dict(zip(own.places, nan_mean(own.level).tolist(), strict=True)) for own in levels]
    both = [{row.label for row in report.modules} for report in reports]
    most = [_at_most(report) for report in reports]
    for place in sorted(known[0].keys() ^ known[1].keys()):
        if place[0] not in both[0] or place[0] not in both[1]:
            continue
        before, after = (own.get(place, at_most) for own, at_most in zip(known, most, strict=True))
        change = after - before - comparison.effects.common
        grew = place in known[1]
        if (change if grew else -change) > noise:
            yield Change(place, exp(before), exp(after), exp(change) - 1, bounds_around(change, noise))


def _at_most(report: Report) -> float:
    times = report.summary.iterations
    return log(KEPT_SHARE * times.median_ns) if times and times.median_ns else float("nan")
