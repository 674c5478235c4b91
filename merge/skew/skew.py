"""How far ranks differ in phases and in self times of modules: each rank against the median of its cohort.

Self times are compared, because inclusive times blame the ranks that wait.  Only ranks of one role do the same work, so
a rank's *excess* is its time minus the median of its own cohort, and rows are ordered by the largest excess of any
rank.  A rank in a cohort of fewer than three has no excess, as long as a larger cohort exists: of two ranks that
differ, either may be the odd one.

    tables (subjects, ranks) -> minus the cohort's median, cohort by cohort -> rows, and the map of the worst columns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.report import RankRow, Skew, SkewMap, SkewRow, Stragglers
from distprof.merge.skew.stragglers import find_stragglers
from distprof.merge.stats import nan_median, to_number
from distprof.merge.times.module_profile import TimeTables, time_tables
from distprof.merge.times.rank_rows import rank_rows
from distprof.merge.wording import pluralise
from distprof.records import PHASES

MIN_COHORT = 3
MIN_COVERAGE = 0.8
MAP_COLUMNS = 16
_MODULE_PHASES = ("forward", "backward")
#: Inclusive times, in which the ranks that wait look slow as well; the modules' self times replace them.
_INCLUSIVE_PHASES = ("iteration", "forward", "backward")


@dataclass(frozen=True)
class _Table:
    """Times of some subjects, one row each, in ns; ``excess`` is each rank's time minus the median of its cohort."""

    subjects: Sequence[str]
    phases: Sequence[str]
    times: FloatArray  # (subjects, ranks)
    excess: FloatArray

    def at(self, places: npt.NDArray[np.int64]) -> _Table:
        """Returns the table of some of the subjects, in this order."""
        subjects, phases = ([names[place] for place in places.tolist()] for names in (self.subjects, self.phases))
        return _Table(subjects, phases, self.times[places], self.excess[places])


@computed_once
def skew_over_ranks(analysis: Analysis) -> Skew:
    """Returns how far the ranks disagree, and which of them may be slow."""
    rows, labels = rank_rows(analysis), [module.label for module in analysis.union.modules]
    ranks = np.array([row.rank for row in rows], np.int64)
    cohorts = np.array([row.cohort for row in rows], np.int64)
    phases, modules = _phase_table(rows, cohorts), _module_table(labels, time_tables(analysis), cohorts)
    modules = modules.at(_worst_first(modules))
    too_few = _too_few(analysis.run.world_size, cohorts[~np.isnan(phases.times[0])])
    return Skew(
        phases=_rows(phases.at(_comparable(phases)), ranks),
        modules=_rows(modules, ranks),
        map=_map(modules.at(np.arange(min(MAP_COLUMNS, len(modules.subjects)))), ranks),
        too_few=too_few,
        suspects=None if too_few else _suspects(analysis, modules, phases, ranks),
    )


def _suspects(analysis: Analysis, modules: _Table, phases: _Table, ranks: npt.NDArray[np.int64]) -> Stragglers | None:
    """Returns the stragglers by the modules, and by the phases that have no self times of modules."""
    own = phases.at(np.array([n for n, phase in enumerate(phases.phases) if phase not in _INCLUSIVE_PHASES], np.int64))
    places = [
        *zip(modules.subjects, modules.phases, strict=True),
        *zip(own.subjects, own.phases, strict=True),
    ]
    groups = [group for same_size in analysis.unknown_groups.values() for group in same_size]
    excess = np.concatenate([modules.excess, own.excess])
    return find_stragglers(places, excess, ranks.tolist(), analysis.layout, groups)


def _phase_table(rows: Sequence[RankRow], cohorts: npt.NDArray[np.int64]) -> _Table:
    times = np.array([_phase_times(row) for row in rows], np.float64).T
    names = ("iteration", *PHASES)
    return _Table(names, names, times, excess_over_cohort(times, cohorts))


def _module_table(labels: Sequence[str], times: TimeTables, cohorts: npt.NDArray[np.int64]) -> _Table:
    """Returns a table with every module twice: its self times in forward, then in backward."""
    both = np.concatenate([times.forward_self, times.backward_self])
    phases = [phase for phase in _MODULE_PHASES for _ in labels]
    return _Table([*labels, *labels], phases, both, excess_over_cohort(both, cohorts))


def _map(worst: _Table, ranks: npt.NDArray[np.int64]) -> SkewMap:
    return SkewMap(
        ranks=tuple(ranks.tolist()),
        subjects=tuple(worst.subjects),
        phases=tuple(worst.phases),
        self_ns=_by_rank(worst.times),
        excess_ns=_by_rank(worst.excess),
    )


def excess_over_cohort(table: FloatArray, cohorts: npt.NDArray[np.int64]) -> FloatArray:
    """Returns (subjects, ranks) times minus the median of each rank's cohort; NaN without a time or a cohort."""
    excess = np.full_like(table, np.nan)
    members = [np.flatnonzero(cohorts == cohort) for cohort in np.unique(cohorts)]
    largest = max((len(ranks) for ranks in members), default=0)
    for ranks in members:
        if len(ranks) >= min(MIN_COHORT, largest):
            own = table[:, ranks]
            excess[:, ranks] = own - nan_median(own)[:, None]
    return excess


def _phase_times(row: RankRow) -> list[float]:
    times = [row.iteration_ns, *(row.phases_ns[phase] for phase in PHASES)]
    return [np.nan if time is None else time for time in times]


def _comparable(table: _Table) -> npt.NDArray[np.int64]:
    """Returns the indices of the subjects that took any time and have an excess, in their order."""
    return np.flatnonzero((np.nansum(table.times, axis=1) > 0) & ~np.isnan(table.excess).all(axis=1))


def _worst_first(table: _Table) -> npt.NDArray[np.int64]:
    """Returns the comparable subjects, the largest excess first; equal ones in the order of the model."""
    known = _comparable(table)
    largest = np.nanmax(table.excess[known], axis=1, initial=-np.inf)
    worst: npt.NDArray[np.int64] = known[np.argsort(-largest, kind="stable")]
    return worst


def _rows(table: _Table, ranks: npt.NDArray[np.int64]) -> tuple[SkewRow, ...]:
    """Returns one row a subject; each has times and an excess."""
    if not table.subjects:
        return ()
    slowest = np.nanargmax(table.excess, axis=1)
    columns = zip(
        table.subjects,
        table.phases,
        np.nanmin(table.times, axis=1).tolist(),
        nan_median(table.times).tolist(),
        np.nanmax(table.times, axis=1).tolist(),
        np.take_along_axis(table.excess, slowest[:, None], axis=1)[:, 0].tolist(),
        ranks[slowest].tolist(),
        np.count_nonzero(~np.isnan(table.times), axis=1).tolist(),
        strict=True,
    )
    return tuple(_row(*column) for column in columns)


def _row(
    subject: str, phase: str, least: float, median: float, most: float, excess: float, slowest: int, ranks: int
) -> SkewRow:
    return SkewRow(
        subject=subject,
        phase=phase,
        min_ns=least,
        median_ns=median,
        max_ns=most,
        ratio=most / median if median else None,
        excess_ns=excess,
        slowest_rank=slowest,
        ranks=ranks,
    )


def _too_few(world_size: int, cohorts: npt.NDArray[np.int64]) -> str:
    """Returns why no rank can be named, from the cohorts of the ranks with times; empty where one can."""
    if len(cohorts) < MIN_COVERAGE * world_size:
        return (
            f"only {len(cohorts):,} of {pluralise(world_size, 'rank')} recorded timed steps "
            f"(less than {MIN_COVERAGE:.0%}): the slow one may be among the others, so nobody is named"
        )
    largest = int(np.unique(cohorts, return_counts=True)[1].max(initial=0))
    if largest < MIN_COHORT:
        return (
            f"no more than {pluralise(largest, 'rank')} {'does' if largest == 1 else 'do'} the same work: "
            f"it takes {MIN_COHORT} to tell who is slow, so nobody is named"
        )
    return ""


def _by_rank(table: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(to_number(value) for value in column) for column in table.T)
