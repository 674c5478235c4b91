"""Where ranks disagree: phases, and self times of modules, each rank against the median of its cohort.

Self times, because inclusive ones blame the ranks that wait.  Only ranks of one role do the same work, so a rank's
*excess* is its time minus the median of its own cohort, and rows are ranked by the largest excess of any rank.  A
rank in a cohort of fewer than three has no excess (one of two equals is as odd as the other) as long as a larger
cohort exists.

    tables (subjects, ranks) -> minus the cohort's median, cohort by cohort -> rows, and the map of the worst columns
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distprof.merge.load import LoadedRun
from distprof.merge.profile import TimeTables
from distprof.merge.report import RankRow, Skew, SkewMap, SkewRow
from distprof.merge.spread import median_known, number
from distprof.merge.window import FloatArray
from distprof.merge.words import plural
from distprof.records import PHASES

MIN_COHORT = 3
MIN_COVERAGE = 0.8
MAP_COLUMNS = 16
_MODULE_PHASES = ("forward", "backward")


def skew_of(run: LoadedRun, rows: Sequence[RankRow], labels: Sequence[str], times: TimeTables) -> Skew:
    """``rows``: the ranks, as the columns of ``times``; ``labels``: the modules, as its rows."""
    ranks = np.array([row.rank for row in rows], np.int64)
    cohorts = np.array([row.cohort for row in rows], np.int64)
    phase_table = np.array([_phase_times(row) for row in rows], np.float64).T
    phases = _rows(("iteration", *PHASES), ("iteration", *PHASES), phase_table, excess_of(phase_table, cohorts), ranks)

    table = np.concatenate([times.forward_self, times.backward_self])
    subjects = [*labels, *labels]
    names = [phase for phase in _MODULE_PHASES for _ in labels]
    excess = excess_of(table, cohorts)
    worst = _worst_first(excess)
    modules = _rows(_at(subjects, worst), _at(names, worst), table[worst], excess[worst], ranks)
    top = worst[:MAP_COLUMNS]
    return Skew(
        phases=phases,
        modules=modules,
        map=SkewMap(
            ranks=tuple(ranks.tolist()),
            subjects=tuple(_at(subjects, top)),
            phases=tuple(_at(names, top)),
            self_ns=_by_rank(table[top]),
            excess_ns=_by_rank(excess[top]),
        ),
        too_few=_too_few(run, cohorts),
    )


def excess_of(table: FloatArray, cohorts: npt.NDArray[np.int64]) -> FloatArray:
    """(subjects, ranks) times minus the median of each rank's cohort; NaN without a time or a cohort to compare."""
    excess = np.full_like(table, np.nan)
    members = [np.flatnonzero(cohorts == cohort) for cohort in np.unique(cohorts)]
    largest = max((len(ranks) for ranks in members), default=0)
    for ranks in members:
        if len(ranks) >= min(MIN_COHORT, largest):
            own = table[:, ranks]
            excess[:, ranks] = own - median_known(own)[:, None]
    return excess


def _phase_times(row: RankRow) -> list[float]:
    times = [row.iteration_ns, *(row.phases_ns[phase] for phase in PHASES)]
    return [np.nan if time is None else time for time in times]


def _worst_first(excess: FloatArray) -> npt.NDArray[np.int64]:
    """Indices of the subjects that have an excess, the largest first; equal ones in the order of the model."""
    largest = np.where(np.isnan(excess), -np.inf, excess).max(axis=1, initial=-np.inf)
    order = np.argsort(-largest, kind="stable")
    known: npt.NDArray[np.int64] = order[np.isfinite(largest[order])]
    return known


def _rows(
    subjects: Sequence[str], phases: Sequence[str], table: FloatArray, excess: FloatArray, ranks: npt.NDArray[np.int64]
) -> tuple[SkewRow, ...]:
    """Rows of the subjects that took any time and can be compared."""
    return tuple(
        _row(subject, phase, times[~np.isnan(times)], over, ranks)
        for subject, phase, times, over in zip(subjects, phases, table, excess, strict=True)
        if np.nansum(times) > 0 and not np.isnan(over).all()
    )


def _row(subject: str, phase: str, times: FloatArray, excess: FloatArray, ranks: npt.NDArray[np.int64]) -> SkewRow:
    slowest = int(np.nanargmax(excess))
    median, most = float(np.median(times)), float(times.max())
    return SkewRow(
        subject=subject,
        phase=phase,
        min_ns=float(times.min()),
        median_ns=median,
        max_ns=most,
        ratio=most / median if median else None,
        excess_ns=float(excess[slowest]),
        slowest_rank=int(ranks[slowest]),
        ranks=len(times),
    )


def _too_few(run: LoadedRun, cohorts: npt.NDArray[np.int64]) -> str:
    if len(cohorts) < MIN_COVERAGE * run.world_size:
        return (
            f"only {len(cohorts):,} of {plural(run.world_size, 'rank')} were recorded (less than {MIN_COVERAGE:.0%}): "
            "the slow one may be among the others, so nobody is named"
        )
    largest = int(np.unique(cohorts, return_counts=True)[1].max(initial=0))
    if largest < MIN_COHORT:
        return (
            f"no more than {plural(largest, 'rank')} {'does' if largest == 1 else 'do'} the same work: "
            f"it takes {MIN_COHORT} to tell who is slow, so nobody is named"
        )
    return ""


def _by_rank(table: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(number(value) for value in column) for column in table.T)


def _at(names: Sequence[str], places: npt.NDArray[np.int64]) -> list[str]:
    return [names[place] for place in places.tolist()]
