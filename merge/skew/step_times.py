"""What is compared: the times of a cohort by place, rank and step.

A place is a module in forward or backward, or a phase.  Sums of places are places too: they show a rank that is slow in
a module in both directions, or a little slow in every module, where no single one stands out.

    windows of a cohort's ranks -> kept self times by module, phases, sums -> (places, ranks, steps)
    -> minus the waits in collectives, where these were recorded

Without the waits these are *own* times.  Where waits are not known, a rank that waits in a place looks slow in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray, IntArray, distinct
from distprof.merge.collectives.own_times import lossy_iterations, rank_waits, why_no_own_times
from distprof.merge.load.window import Window
from distprof.merge.report import BOTH_WAYS, THROUGHOUT
from distprof.merge.times.phase_tables import phase_tables
from distprof.plain import dataclass
from distprof.records import PHASES

#: Levels of places, the finest first: one module in one direction, or a phase without modules; one module in both; all
#: modules of a phase; everything.
FINE, MODULE, SUM, WHOLE = 0, 1, 2, 3
_FINE_PHASES = ("data", "outside", "optimizer", "evaluation", "other")
_SUM_PHASES = ("forward", "backward")


@dataclass(frozen=True)
class Place:
    subject: str  # module label, phase or THROUGHOUT
    phase: str
    level: int = FINE


@dataclass(frozen=True, eq=False)
class StepTimes:
    """Times in ns of the ranks of one cohort: (places, ranks, steps), NaN where a rank has none."""

    ranks: tuple[int, ...]
    iterations: IntArray
    places: tuple[Place, ...]
    times: FloatArray

    @property
    def steps(self) -> int:
        return len(self.iterations)


def cohort_ranks(analysis: Analysis) -> list[tuple[int, ...]]:
    """Returns the ranks of each cohort that have timed steps."""
    found: dict[int, list[int]] = {}
    for rank in analysis.timed_windows:
        found.setdefault(analysis.cohorts[rank], []).append(rank)
    return [tuple(found[cohort]) for cohort in sorted(found)]


def step_times(analysis: Analysis, ranks: Sequence[int], *, with_waits: bool = False) -> StepTimes:
    """Returns the times of the ranks of one cohort, in the iterations that any of them timed: own times where the waits
    are known, unless they are wanted ``with_waits``.
    """
    windows = [analysis.timed_windows[rank] for rank in ranks]
    iterations = distinct(np.concatenate(list({window.iterations for window in windows})))
    columns = {own: np.searchsorted(iterations, own) for own in {window.iterations for window in windows}}
    keys, modules = _modules(analysis, ranks, columns, len(iterations))
    names, phases = _phases(analysis, ranks, columns, len(iterations))
    labels = [module.label for module in analysis.union.modules]
    places = (
        *(Place(labels[module], _SUM_PHASES[backward]) for backward, module in keys),
        *(Place(name, name, SUM if name in _SUM_PHASES else FINE) for name in names),
        Place(THROUGHOUT, THROUGHOUT, WHOLE),
    )
    times = StepTimes(tuple(ranks), iterations, places, np.concatenate([modules, phases]))
    if not with_waits and not why_no_own_times(analysis):
        row_of = {key: row for row, key in enumerate(keys)}
        phase_row = {PHASES.index(name): len(keys) + row for row, name in enumerate(names)}
        _subtract_waits(times, analysis, row_of, phase_row)
    return _with_both_ways(times)


def _with_both_ways(times: StepTimes) -> StepTimes:
    """Returns the same with a place for each module whose times in both directions were kept."""
    row_of = {(place.subject, place.phase): row for row, place in enumerate(times.places) if place.level == FINE}
    forward, backward = _SUM_PHASES
    pairs = {
        subject: (row, row_of[subject, backward])
        for (subject, phase), row in row_of.items()
        if phase == forward and (subject, backward) in row_of
    }
    if not pairs:
        return times
    rows = np.array(list(pairs.values()))
    sums = times.times[rows[:, 0]] + times.times[rows[:, 1]]
    places = (*(Place(subject, BOTH_WAYS, MODULE) for subject in pairs), *times.places)
    return replace(times, places=places, times=np.concatenate([sums, times.times]))


def _subtract_waits(
    times: StepTimes, analysis: Analysis, row_of: Mapping[tuple[int, int], int], phase_row: Mapping[int, int]
) -> None:
    """Leaves own times: what a rank waited is taken from the module, from the phase and from the whole."""
    lossy = np.isin(times.iterations, list(lossy_iterations(analysis)))
    times.times[:, :, lossy] = np.nan
    row_of_phase = np.array([phase_row.get(phase, -1) for phase in (*range(len(PHASES)), -1)])  # the last: not known
    for number, rank in enumerate(times.ranks):
        waits = rank_waits(analysis).get(rank)
        if waits is None:
            continue
        known = np.isin(waits.iteration, times.iterations)
        column, wait_ns = np.searchsorted(times.iterations, waits.iteration[known]), waits.wait_ns[known]
        own, whole = times.times[:, number], np.full(len(column), -1)
        for rows in (_module_rows(waits.owner[known], row_of), row_of_phase[waits.phase[known]]):
            found = rows >= 0
            np.subtract.at(own, (rows[found], column[found]), wait_ns[found])
        np.subtract.at(own, (whole, column), wait_ns)
    np.maximum(times.times, 0, out=times.times)  # NaN stays


def _module_rows(owners: IntArray, row_of: Mapping[tuple[int, int], int]) -> IntArray:
    """Returns the row of each owner's module, -1 where it has none."""
    different, where = np.unique(owners, return_inverse=True)
    rows = [row_of.get((int(owner < 0), ~owner if owner < 0 else owner), -1) for owner in different.tolist()]
    return np.array(rows, np.int64)[where]


#: The numbers of a window's iterations, which most ranks have alike.
IterationNumbers = tuple[int, ...]


def _phases(
    analysis: Analysis, ranks: Sequence[int], columns: Mapping[IterationNumbers, IntArray], steps: int
) -> tuple[list[str], FloatArray]:
    """Returns the phases that were seen, and the whole iteration."""
    tables, windows = phase_tables(analysis), [analysis.timed_windows[rank] for rank in ranks]
    names = [name for name in (*_FINE_PHASES, *_SUM_PHASES) if any(name in window.phases_ns for window in windows)]
    place = {rank: number for number, rank in enumerate(tables.ranks)}
    times = np.full((len(names) + 1, len(ranks), steps), np.nan)
    for members in _alike(windows):
        column, rows = columns[windows[members[0]].iterations], [place[ranks[number]] for number in members]
        for number, name in enumerate(names):
            times[number][np.ix_(np.array(members), column)] = tables.phases[name][rows, : len(column)]
        times[-1][np.ix_(np.array(members), column)] = [windows[number].durations_ns for number in members]
    return names, times


def _alike(windows: Sequence[Window]) -> list[list[int]]:
    """Returns the places of the windows that have the same iterations, as those of most ranks have."""
    found: dict[IterationNumbers, list[int]] = {}
    for number, window in enumerate(windows):
        found.setdefault(window.iterations, []).append(number)
    return list(found.values())


def _modules(
    analysis: Analysis, ranks: Sequence[int], columns: Mapping[IterationNumbers, IntArray], steps: int
) -> tuple[list[tuple[int, int]], FloatArray]:
    """Returns (backward, module of the union) of the modules whose self times by step any of the ranks kept.

    Other ranks may not have kept them, as they take less there: their median stands for each of their steps.
    """
    column_of = {data.rank: number for number, data in enumerate(analysis.ranks)}
    modules = _Modules(len(analysis.union.modules))
    for rank in ranks:
        modules.add(analysis.union.index(column_of[rank]), analysis.timed_windows[rank])
    return modules.keys(), modules.times(columns, steps)


class _Modules:
    """The self times of the modules that any rank of a cohort kept.

    A place is a module of the union in forward, and the number of modules more in backward.
    """

    def __init__(self, modules: int) -> None:
        self._modules = modules
        self._ranks: list[tuple[IntArray, Window]] = []
        self._places: dict[int, IntArray] = {}  # by the id of the modules of a rank: the places of its times

    def add(self, index: IntArray, window: Window) -> None:
        """Adds a rank, whose rows are the modules ``index`` of the union."""
        self._ranks.append((index, window))
        if id(index) not in self._places:
            self._places[id(index)] = np.concatenate([index, index + self._modules])

    def keys(self) -> list[tuple[int, int]]:
        """Returns (backward, module of the union), ascending."""
        return [divmod(place, self._modules) for place in self._kept.tolist()]

    @cached_property
    def _kept(self) -> IntArray:
        kept = [self._places_of(index, window) for index, window in self._ranks if window.times is not None]
        return distinct(np.concatenate(kept)) if kept else np.zeros(0, np.int64)

    def _places_of(self, index: IntArray, window: Window) -> IntArray:
        assert window.times is not None
        return self._places[id(index)][window.times.by_step.places]

    def times(self, columns: Mapping[IterationNumbers, IntArray], steps: int) -> FloatArray:
        """Returns (places, ranks, steps); each step of ``columns`` has the median where its time was not kept."""
        times = np.full((len(self._ranks), len(self._kept), steps), np.nan)  # those of a rank side by side
        rows_of = {key: self._rows(places) for key, places in self._places.items()}
        for own, (index, window) in zip(times, self._ranks, strict=True):
            if window.times is not None:
                there, rows = rows_of[id(index)]
                column = columns[window.iterations]
                own[there[:, None], column] = window.times.times[:2].reshape(-1)[rows][:, None]
                kept = np.searchsorted(self._kept, self._places_of(index, window))
                own[kept[:, None], column] = window.times.by_step.times
        return np.moveaxis(times, 1, 0)

    def _rows(self, places: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the kept places that a rank has, and where its medians of these are."""
        row_of = np.full(2 * self._modules, -1)
        row_of[places] = np.arange(len(places))
        rows = row_of[self._kept]
        return np.flatnonzero(rows >= 0), rows[rows >= 0]
