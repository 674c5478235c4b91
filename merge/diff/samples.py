"""What is compared step by step: the times of iterations, and the self times of places on all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.report import Report

#: Phases outside modules.
_PHASES = ("data", "outside", "optimizer", "other")

#: (module label or phase, phase)
Place = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two runs.  ``places`` has (ranks, steps) self times in ns by place; None of a report without steps."""

    report: Report
    places: Mapping[Place, FloatArray] | None = field(default=None, repr=False)


def place_samples(analysis: Analysis) -> dict[Place, FloatArray]:
    """Returns the (ranks, steps) self times of modules that take a good part of an iteration, and of phases outside
    modules; ranks and steps that not all of a place's ranks have are left out.
    """
    labels = [module.label for module in analysis.union.modules]
    found: dict[Place, list[FloatArray]] = {}
    for column, data in enumerate(analysis.ranks):
        window = analysis.timed_windows.get(data.rank)
        if window is None or window.times is None:
            continue
        own, places = window.times.by_step, analysis.union.index(column)
        for phase, rows, times in (
            ("forward", own.forward_rows, own.forward),
            ("backward", own.backward_rows, own.backward),
        ):
            for row, steps in zip(places[rows].tolist(), times, strict=True):
                found.setdefault((labels[row], phase), []).append(steps.astype(np.float64))
        for phase in _PHASES:
            if phase in window.phases_ns:
                found.setdefault((phase, phase), []).append(np.nan_to_num(window.phases_ns[phase]))
    return {place: _stacked(rows) for place, rows in found.items()}


def _stacked(rows: list[FloatArray]) -> FloatArray:
    """Returns the rows as one array, cut to the shortest."""
    steps = min(map(len, rows))
    return np.stack([row[:steps] for row in rows])


def iteration_samples(report: Report) -> FloatArray:
    """Returns (1, steps): the wall time of each timed iteration in ns, the median of its ranks."""
    by_iteration: dict[int, list[float]] = {}
    for row in report.ranks:
        for iteration, duration in zip(row.step_iterations, row.step_durations_ns, strict=True):
            by_iteration.setdefault(iteration, []).append(duration)
    return np.array([[float(np.median(by_iteration[iteration])) for iteration in sorted(by_iteration)]])


def processor_wait_share(report: Report) -> float | None:
    """Returns which share of the iterations' time a thread waited for a processor, of the rank that waited most in each
    iteration; None where no rank knows it.
    """
    shares: dict[int, float] = {}
    for row in report.ranks:
        for iteration, duration, waited in zip(
            row.step_iterations, row.step_durations_ns, row.step_processor_waits_ns, strict=True
        ):
            if waited is not None and duration:
                shares[iteration] = max(shares.get(iteration, 0.0), waited / duration)
    return fmean(shares.values()) if shares else None
