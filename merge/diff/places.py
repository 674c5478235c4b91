"""Where two runs differ: the self times of modules, and of phases outside modules.

Of modules, the 5th percentile of steps and ranks is compared, which other jobs on the machine disturb least: they only
add time, and not in all steps.  What all modules have in common is taken off first: a machine that is slower as a
whole, or another number format, is not the fault of a module.  Phases outside modules, which the script may be slow in
now and then, are compared by their medians, with bounds that include the waits for processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.data import INSIDE, PlaceChange
from distprof.merge.diff.figures import finding
from distprof.merge.diff.noise import Estimate, bounds, estimate, widened
from distprof.merge.diff.samples import Place, Side, processor_wait_share
from distprof.merge.report import Report

#: Steps of a place that is below this share of an iteration are not kept (merge/load/self_times.py).
KEPT_SHARE = 0.01
#: A place is named from this change on, and if it costs or gains this share of an iteration.
LEAST_CHANGE = 0.03
LEAST_COST = 0.005
_PERCENTILE = 5
_BATCHES = 8
_MODULE_PHASES = ("forward", "backward")
_CERTAIN = 1_000_000  # degrees of freedom of a figure without an error


def common_change(changes: Mapping[Place, float], weights: Mapping[Place, float]) -> float:
    """Returns the weighted median of the modules' logarithms."""
    ordered = sorted((value, weights[place]) for place, value in changes.items())
    half, reached = sum(weight for _, weight in ordered) / 2, 0.0
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return 0.0


def why_no_places(first: Side, second: Side) -> str:
    """Returns why places are not compared, or an empty text."""
    for name, side in (("first", first), ("second", second)):
        if side.places is None:
            return f"{name} run: a report has no times step by step; give the run's folder"
    return ""


def place_changes(first: Side, second: Side) -> tuple[float | None, tuple[PlaceChange, ...]]:
    """Returns (the relative change that modules have in common, the places, the largest cost or gain first)."""
    if first.places is None or second.places is None or not first.report.summary.iterations:
        return None, ()
    pairs = _estimates(first, second)
    both = {place: pair for place, pair in pairs.items() if place[1] in _MODULE_PHASES and _are_measured(*pair)}
    changes = {place: pair[1].log - pair[0].log for place, pair in both.items()}
    common = common_change(changes, {place: exp(pair[0].log) for place, pair in both.items()})
    iteration_ns = first.report.summary.iterations.median_ns
    waited = processor_wait_share(first.report) or 0.0, processor_wait_share(second.report) or 0.0
    found = [_change(place, *pair, common, waited, len(pairs), iteration_ns) for place, pair in pairs.items()]
    return exp(common) - 1 if both else None, tuple(sorted(found, key=lambda one: -abs(one.cost_ns)))


def _change(
    place: Place,
    first: Estimate,
    second: Estimate,
    common: float,
    waited: tuple[float, float],
    comparisons: int,
    iteration_ns: float,
) -> PlaceChange:
    in_module = place[1] in _MODULE_PHASES
    found = bounds(first, second, comparisons=comparisons, offset=common if in_module else 0.0)
    if not in_module:
        found = widened(found, *waited)
    cost_ns = exp(first.log) * found.change
    kind = finding(found, LEAST_CHANGE) if abs(cost_ns) >= LEAST_COST * iteration_ns else INSIDE
    return PlaceChange(
        subject=place[0],
        phase=place[1],
        first_ns=exp(first.log),
        second_ns=exp(second.log),
        change=found.change,
        low=found.low,
        high=found.high,
        cost_ns=cost_ns,
        share=cost_ns / iteration_ns,
        finding=kind,
    )


def _estimates(first: Side, second: Side) -> dict[Place, tuple[Estimate, Estimate]]:
    """Returns the estimates of places that both runs have.

    Where the steps of one run were not kept, its time is at most :data:`KEPT_SHARE` of its iteration.  It counts as
    that if the other run is above it beyond the noise, and the place is left out otherwise.
    """
    assert first.places is not None and second.places is not None
    pairs = {}
    for place in {**first.places, **second.places}:
        one, other = (_estimate(side, place) for side in (first, second))
        if one is not None and other is not None and _is_known(one, other):
            pairs[place] = one, other
    return pairs


def _is_known(first: Estimate, second: Estimate) -> bool:
    """Returns whether both are known, or the one that is known is above the most that the other can be."""
    if first.freedom == _CERTAIN:
        return bounds(first, second).low > 0
    return second.freedom != _CERTAIN or bounds(first, second).high < 0


def _are_measured(first: Estimate, second: Estimate) -> bool:
    return _CERTAIN not in (first.freedom, second.freedom)


def _estimate(side: Side, place: Place) -> Estimate | None:
    assert side.places is not None
    if place in side.places:
        in_module = place[1] in _MODULE_PHASES
        return estimate(side.places[place], _low_percentile if in_module else _median, _BATCHES)
    has = any(row.label == place[0] for row in side.report.modules)
    return _at_most(side.report) if has and place[1] in _MODULE_PHASES else None


def _at_most(report: Report) -> Estimate | None:
    times = report.summary.iterations
    return Estimate(log(KEPT_SHARE * times.median_ns), 0.0, _CERTAIN) if times and times.median_ns else None


def _low_percentile(samples: FloatArray) -> float:
    return float(np.percentile(samples, _PERCENTILE))


def _median(samples: FloatArray) -> float:
    return float(np.median(samples))
