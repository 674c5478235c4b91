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

#: The times of one run: those of each cohort.
Times = tuple[StepTimes, ...]


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two runs.  ``places`` has the times of each cohort, ``own`` those without waits in collectives; None
    of a report, which has no steps of places, and of a run whose waits are not known.

    ``again`` are further runs of the same: they show how far equal runs differ.
    """

    report: Report
    places: Times | None = field(default=None, repr=False)
    own: Times | None = field(default=None, repr=False)
    again: tuple[Side, ...] = field(default=(), repr=False)

    @property
    def runs(self) -> tuple[Side, ...]:
        """This run and its repetitions."""
        return self, *self.again

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports of this run and of its repetitions."""
        return tuple(run.report for run in self.runs)


def side_of(analysis: Analysis) -> Side:
    """Returns a run as a side of a comparison."""
    cohorts = cohort_ranks(analysis)
    places = tuple(step_times(analysis, ranks, with_waits=True) for ranks in cohorts)
    own = None if why_no_own_times(analysis) else tuple(step_times(analysis, ranks) for ranks in cohorts)
    return Side(report_of(analysis), places, own)


def comparable_times(first: Side, second: Side) -> tuple[tuple[Times, ...], tuple[Times, ...]] | None:
    """Returns the times of the runs of each side: own times where all have them, else times with waits; None where a
    run has none.
    """
    own = [[run.own for run in side.runs] for side in (first, second)]
    places = [[run.places for run in side.runs] for side in (first, second)]
    for found in (own, places):
        known = [tuple(times for times in runs if times is not None) for runs in found]
        if all(len(times) == len(runs) for times, runs in zip(known, found, strict=True)):
            return known[0], known[1]
    return None


def iteration_samples(report: Report) -> FloatArray:
    """Returns (1, steps): the wall time of each timed iteration in ns, the median of its ranks."""
    by_iteration: dict[int, list[float]] = {}
    for row in report.ranks:
        for iteration, duration in zip(row.step_iterations, row.step_durations_ns, strict=True):
            by_iteration.setdefault(iteration, []).append(duration)
    return np.array([[float(np.median(by_iteration[iteration])) for iteration in sorted(by_iteration)]])


def are_repeated(first: Side, second: Side) -> bool:
    """Returns whether both runs were recorded several times, so that their spread is known."""
    return bool(first.again and second.again)


def processor_wait_share(side: Side) -> float | None:
    """Returns which share of the iterations' time a thread waited for a processor, of the rank that waited most in each
    iteration, and the mean of repeated runs; None where no rank of a run knows it.
    """
    shares = [share for share in map(_processor_wait_share, side.reports) if share is not None]
    return fmean(shares) if len(shares) == len(side.reports) else None


def _processor_wait_share(report: Report) -> float | None:
    shares: dict[int, float] = {}
    for row in report.ranks:
        for iteration, duration, waited in zip(
            row.step_iterations, row.step_durations_ns, row.step_processor_waits_ns, strict=True
        ):
            if waited is not None and duration:
                shares[iteration] = max(shares.get(iteration, 0.0), waited / duration)
    return fmean(shares.values()) if shares else None
