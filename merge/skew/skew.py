"""How far ranks differ in phases and in self times of modules: each rank against the others of its cohort.

Self times are compared, because inclusive times blame the ranks that wait; and of these the own times, without waits
in collectives, where waits are known.  Only the ranks of a cohort do the same
work, so a rank's *excess* is its time minus the median of the others of its cohort, and rows are ordered by the largest
excess of any rank.  A rank in a cohort of fewer than three has no excess, as long as a larger cohort exists: of two
ranks that differ, either may be the odd one.

    tables (subjects, ranks) -> minus the median of the others, cohort by cohort -> rows, and the map of the worst
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray, distinct
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.report import RankRow, Skew, SkewMap, SkewRow
from distprof.merge.skew.comparable import why_not_comparable
from distprof.merge.skew.excess import CohortExcess, cohort_excesses, excess_over_others
from distprof.merge.skew.step_times import WHOLE
from distprof.merge.skew.thresholds import MIN_COHORT
from distprof.merge.stats import nan_median, to_number
from distprof.merge.times.module_profile import TimeTables, time_tables
from distprof.merge.times.rank_rows import rank_rows
from distprof.plain import dataclass
from distprof.records import PHASES

MAP_COLUMNS = 16
#: Subjects that are compared at once: of a large run, all of them together would take several times their memory.
_SUBJECTS = 32
_MODULE_PHASES = ("forward", "backward")
_WHOLE = ("iteration", "iteration")


@dataclass(frozen=True)
class TimesByPlace:
    """Times of some subjects, one row each, in ns; ``excess`` is each rank's time minus that of the others."""

    subjects: Sequence[str]
    phases: Sequence[str]
    times: FloatArray  # (subjects, ranks), without ``waits``
    excess: FloatArray
    waits: FloatArray | None  # None where they are not known at all

    @cached_property
    def medians(self) -> FloatArray:
        """Returns the median time of each subject over the ranks; NaN where none has one."""
        return nan_median(self.times)

    def at(self, places: IntArray) -> TimesByPlace:
        """Returns the table of some of the subjects, in this order."""
        subjects, phases = ([names[place] for place in places.tolist()] for names in (self.subjects, self.phases))
        waits = None if self.waits is None else self.waits[places]
        return TimesByPlace(subjects, phases, self.times[places], self.excess[places], waits)

    def median_waits(self) -> FloatArray:
        """Returns the median wait of each subject; NaN where it is not known."""
        return np.full(len(self.subjects), np.nan) if self.waits is None else nan_median(self.waits)


@dataclass(frozen=True)
class OwnTimes:
    """The times of all phases, and of every module twice: its self times in forward, then those in backward."""

    phases: TimesByPlace
    modules: TimesByPlace


@computed_once
def own_time_tables(analysis: Analysis) -> OwnTimes:
    """Returns the times of all ranks, without waits in collectives where these are known."""
    rows, labels = rank_rows(analysis), [module.label for module in analysis.union.modules]
    cohorts = np.array([row.cohort for row in rows], np.int64)
    has_waits = not why_no_own_times(analysis)
    phases = _phase_table(rows, cohorts, has_waits=has_waits)
    modules = _module_table(labels, time_tables(analysis), cohorts, has_waits=has_waits)
    for table in (phases, modules):
        ranks = [row.rank for row in rows]
        _take_step_times(table, ranks, cohort_excesses(analysis))
    return OwnTimes(phases, modules)


@computed_once
def skew_over_ranks(analysis: Analysis) -> Skew:
    """Returns how far the ranks disagree."""
    ranks = np.array([data.rank for data in analysis.ranks], np.int64)
    own = own_time_tables(analysis)
    worst = _worst_first(own.modules)
    return Skew(
        phases=_rows(own.phases, _comparable(own.phases), ranks),
        modules=_rows(own.modules, worst, ranks),
        map=_map(own.modules.at(worst[:MAP_COLUMNS]), ranks),
        too_few=why_not_comparable(analysis),
    )


def _phase_table(rows: Sequence[RankRow], cohorts: IntArray, *, has_waits: bool) -> TimesByPlace:
    times = np.array([_phase_times(row) for row in rows], np.float64).T
    names = ("iteration", *PHASES)
    return TimesByPlace(names, names, times, excess_over_cohort(times, cohorts), _no_waits(times, has_waits))


def _no_waits(times: FloatArray, has_waits: bool) -> FloatArray | None:
    return np.full_like(times, np.nan) if has_waits else None


def _module_table(labels: Sequence[str], times: TimeTables, cohorts: IntArray, *, has_waits: bool) -> TimesByPlace:
    """Returns a table with every module twice: its self times in forward, then in backward."""
    both: npt.NDArray[Any] = times.own.copy() if has_waits else times.own  # waits are taken from it
    phases = [phase for phase in _MODULE_PHASES for _ in labels]
    excess, waits = excess_over_cohort(both, cohorts), _no_waits(both, has_waits)
    return TimesByPlace([*labels, *labels], phases, both, excess, waits)


def _take_step_times(table: TimesByPlace, ranks: Sequence[int], cohorts: Sequence[CohortExcess]) -> None:
    """Puts into ``table`` the medians over steps of the excess, which the verdict uses, where steps were kept; where
    waits are known also those of the own times, and what they lack as waits.
    """
    row_of = {place: row for row, place in enumerate(zip(table.subjects, table.phases, strict=True))}
    column_of = {rank: column for column, rank in enumerate(ranks)}
    for excess in cohorts:
        columns = np.array([column_of[rank] for rank in excess.times.ranks], np.int64)
        for place, medians, steps in zip(excess.times.places, excess.median, excess.times.times, strict=True):
            row = row_of.get(_WHOLE if place.level == WHOLE else (place.subject, place.phase))
            if row is None:
                continue
            known = ~np.isnan(table.excess[row, columns]) & ~np.isnan(medians)
            table.excess[row, columns[known]] = medians[known]
            if table.waits is not None:
                _separate_waits(table.times[row], table.waits[row], columns, nan_median(steps))


def _separate_waits(times: FloatArray, waits: FloatArray, columns: IntArray, own: FloatArray) -> None:
    """Replaces the times of some ranks by their ``own`` times, and puts the rest into the waits."""
    known = ~np.isnan(own) & ~np.isnan(times[columns])
    columns, own = columns[known], own[known]
    waits[columns] = np.maximum(times[columns] - own, 0)
    times[columns] = own


def _map(worst: TimesByPlace, ranks: IntArray) -> SkewMap:
    return SkewMap(
        ranks=tuple(ranks.tolist()),
        subjects=tuple(worst.subjects),
        phases=tuple(worst.phases),
        self_ns=_by_rank(worst.times),
        excess_ns=_by_rank(worst.excess),
    )


def excess_over_cohort(table: FloatArray, cohorts: IntArray) -> FloatArray:
    """Returns (subjects, ranks) times minus the median of the others of each rank's cohort; NaN without a time or a
    cohort, and 0 where all cohorts are of one rank.
    """
    excess = np.full_like(table, np.nan)
    members = [np.flatnonzero(cohorts == cohort) for cohort in distinct(cohorts)]
    largest = max((len(ranks) for ranks in members), default=0)
    for ranks in members:
        if len(ranks) >= min(MIN_COHORT, largest):
            for first in range(0, len(table), _SUBJECTS):
                own = table[first : first + _SUBJECTS, ranks]
                excess[first : first + _SUBJECTS, ranks] = excess_over_others(own.T).T if len(ranks) > 1 else own - own
    return excess


def _phase_times(row: RankRow) -> list[float]:
    times = [row.iteration_ns, *(row.phases_ns[phase] for phase in PHASES)]
    return [np.nan if time is None else time for time in times]


def _comparable(table: TimesByPlace) -> IntArray:
    """Returns the indices of the subjects that took any time and have an excess, in their order."""
    most, largest = (np.fmax.reduce(numbers, axis=1, initial=-np.inf) for numbers in (table.times, table.excess))
    return np.flatnonzero((most > 0) & (largest > -np.inf))


def _worst_first(table: TimesByPlace) -> IntArray:
    """Returns the comparable subjects, the largest excess first; equal ones in the order of the model."""
    known = _comparable(table)
    largest = np.fmax.reduce(table.excess, axis=1, initial=-np.inf)[known]
    worst: IntArray = known[np.argsort(-largest, kind="stable")]
    return worst


def _rows(table: TimesByPlace, places: IntArray, ranks: IntArray) -> tuple[SkewRow, ...]:
    """Returns one row for each of some subjects, which have times and an excess."""
    blocks = (places[first : first + _SUBJECTS] for first in range(0, len(places), _SUBJECTS))
    return tuple(row for some in blocks for row in _block(table.at(some), table.medians[some], ranks))


def _block(table: TimesByPlace, medians: FloatArray, ranks: IntArray) -> Iterator[SkewRow]:
    slowest = np.nanargmax(table.excess, axis=1)
    columns = zip(
        table.subjects,
        table.phases,
        np.nanmin(table.times, axis=1).tolist(),
        medians.tolist(),
        np.nanmax(table.times, axis=1).tolist(),
        np.take_along_axis(table.excess, slowest[:, None], axis=1)[:, 0].tolist(),
        ranks[slowest].tolist(),
        np.count_nonzero(~np.isnan(table.times), axis=1).tolist(),
        table.median_waits().tolist(),
        strict=True,
    )
    yield from (_row(*column) for column in columns)


def _row(
    subject: str, phase: str, least: float, median: float, most: float, excess: float, slowest: int, ranks: int,
    wait: float,
) -> SkewRow:  # fmt: skip
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
        wait_ns=to_number(wait),
    )


def _by_rank(table: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    rows = table.T.tolist()
    whole = (~np.isnan(table)).sum(axis=0) == len(table)
    return tuple(tuple(row) if known else tuple(map(to_number, row)) for row, known in zip(rows, whole, strict=True))
