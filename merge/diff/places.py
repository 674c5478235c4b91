"""Where two runs differ: the times of modules, and of phases outside modules.

Modules are compared by low quantiles of their times (levels.py), relative to what all modules have in common, with
bounds from the steps, the ranks and the other modules (effects.py).  Phases outside modules, which the script may be
slow in now and then, are compared by their medians, with bounds that include the waits for processors and the change
that all modules have in common: a machine that is slower as a whole makes the rest of the script slower, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from math import exp
from statistics import fmean

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.data import INSIDE, PlaceChange, Places
from distprof.merge.diff.effects import LEAST_PLACES
from distprof.merge.diff.figures import bounds_of_times, finding
from distprof.merge.diff.levels import LEAST_STEPS, PlaceKey, module_levels
from distprof.merge.diff.modules import Change, ModuleComparison, compare_modules, unkept_changes
from distprof.merge.diff.noise import MOST_WAITED, Bounds, estimate, of_repeated
from distprof.merge.diff.samples import Side, Times, comparable_times, processor_wait_share
from distprof.merge.skew.step_times import StepTimes

#: A place is named from this change on, and if it costs or gains this share of an iteration (without waits).
LEAST_CHANGE = 0.03
LEAST_COST = 0.001
_PHASES = ("data", "outside", "optimizer", "other")


def compare_places(first: Side, second: Side) -> Places:
    """Returns the places, the largest cost or gain first."""
    times = comparable_times(first, second)
    if times is None:
        return Places(why_not="a report has no times step by step: give the folders of both runs")
    worked_ns = _worked_ns(first), _worked_ns(second)
    levels = tuple(map(module_levels, times[0])), tuple(map(module_levels, times[1]))
    modules = compare_modules(*levels, worked_ns, {row.label: row.class_name for row in first.report.modules})
    unkept = unkept_changes(modules, (levels[0][0], levels[1][0]), (first.report, second.report))
    found = chain(modules.changes(), unkept, _phase_changes(times, first, second, modules))
    changes = sorted((_judged(one, worked_ns[0], _iteration_ns(first)) for one in found), key=_order)
    return Places(
        changes=tuple(changes),
        common=exp(modules.effects.common) - 1 if modules.places else None,
        noise=None if modules.noise is None else exp(modules.noise) - 1,
        why_not=_why_unknown(modules, min(own.steps for run in chain(*times) for own in run)),
        without_waits=times[0][0] is first.own,
    )


def _order(one: PlaceChange) -> tuple[bool, float]:
    """Orders places by cost or gain; those whose noise is not known come last."""
    return one.noise is None, -abs(one.cost_ns)


def _iteration_ns(side: Side) -> float:
    """Returns the median iteration, the mean of repeated runs."""
    found = [report.summary.iterations.median_ns for report in side.reports if report.summary.iterations]
    return fmean(found) if found else 0.0


def _worked_ns(side: Side) -> float:
    """Returns the time of an iteration without the waits for processors."""
    return _iteration_ns(side) * (1 - min(processor_wait_share(side) or 0.0, MOST_WAITED))


def _judged(one: Change, worked_ns: float, iteration_ns: float) -> PlaceChange:
    cost_ns = one.first_ns * one.change
    kind = finding(one.bounds, LEAST_CHANGE)
    return PlaceChange(
        subject=one.place[0],
        phase=one.place[1],
        first_ns=one.first_ns,
        second_ns=one.second_ns,
        change=one.change,
        low=one.bounds.low if one.bounds else None,
        high=one.bounds.high if one.bounds else None,
        cost_ns=cost_ns,
        share=cost_ns / iteration_ns,
        finding=kind if one.bounds is None or abs(cost_ns) >= LEAST_COST * worked_ns else INSIDE,
    )


def _why_unknown(modules: ModuleComparison, steps: int) -> str:
    """Returns why the noise of modules is not known; an empty text where it is."""
    if modules.noise is not None:
        return ""
    if steps < LEAST_STEPS:
        return f"fewer than {LEAST_STEPS} timed iterations"
    return f"fewer than {LEAST_PLACES} modules take a good part of the iteration: one cannot be told from the machine"


def _phase_changes(
    times: tuple[Sequence[Times], Sequence[Times]], first: Side, second: Side, modules: ModuleComparison
) -> Iterator[Change]:
    of_machine = exp(abs(modules.effects.common))
    for phase in _PHASES:
        one, other = (of_repeated([estimate(_samples(run, (phase, phase)), _median) for run in runs]) for runs in times)
        found = bounds_of_times((one, other), first, second, comparisons=len(_PHASES))
        if one is not None and other is not None and found is not None:
            found = Bounds(found.change, (1 + found.low) / of_machine - 1, (1 + found.high) * of_machine - 1)
            yield Change((phase, phase), exp(one.log), exp(other.log), found.change, found)


def _samples(cohorts: Sequence[StepTimes], place: PlaceKey) -> FloatArray:
    """Returns the (ranks, steps) times of a phase, in the steps that all of these ranks have; empty without any."""
    tables = [
        own.times[row] for own in cohorts for row, key in enumerate(own.places) if (key.subject, key.phase) == place
    ]
    steps = min((table.shape[1] for table in tables), default=0)
    joined = np.concatenate([table[:, :steps] for table in tables]) if tables else np.empty((0, 0))
    seen = joined[~np.isnan(joined).all(axis=1)] if joined.size else joined
    known: FloatArray = seen[:, ~np.isnan(seen).any(axis=0)]
    return known


def _median(samples: FloatArray) -> float:
    return float(np.median(samples))
