"""What is compared step by step: the times of iterations, and the times of places on all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from distprof.merge.analyse import report_of
from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.report import Report
from distprof.merge.skew.step_times import StepTimes, cohort_ranks, step_times


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two runs.  ``places`` has the times of each cohort, ``own`` those without waits in collectives; None
    of a report, which has no steps of places, and of a run whose waits are not known.
    """

    report: Report
    places: tuple[StepTimes, ...] | None = field(default=None, repr=False)
    own: tuple[StepTimes, ...] | None = field(default=None, repr=False)


def side_of(analysis: Analysis) -> Side:
    """Returns a run as a side of a comparison."""
    cohorts = cohort_ranks(analysis)
    places = tuple(step_times(analysis, ranks, with_waits=True) for ranks in cohorts)
    own = None if why_no_own_times(analysis) else tuple(step_times(analysis, ranks) for ranks in cohorts)
    return Side(report_of(analysis), places, own)


def comparable_times(first: Side, second: Side) -> tuple[tuple[StepTimes, ...], tuple[StepTimes, ...]] | None:
    """Returns own times of both runs where both have them, else times with waits; None where a run has none."""
    if first.own is not None and second.own is not None:
        return first.own, second.own
    if first.places is not None and second.places is not None:
        return first.places, second.places
    return None


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
