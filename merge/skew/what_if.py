"""What slow ranks cost: the iteration is replayed with them as fast as the others of their cohort.

    enqueues and waits of each rank, with its own time before each -> replay -> the same with other own times -> the
    difference of an iteration

In a replay a rank works, enqueues, and waits until the last member has enqueued, where it waited in the run.  What a
slow rank loses is taken from its own times, for all slow ranks jointly: between the enqueues where it lies furthest
above the median of its cohort, they are set to this median.  Where it is faster than the others, it stays so.  Where
the replay of the times as they were does not give the iteration that was measured, there is no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray, largest_of_each, ragged
from distprof.merge.collectives.job_clock import clock_of
from distprof.merge.collectives.join import recorded, slices_of
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.collectives.waits import Waits, collective_waits
from distprof.merge.stats import middle
from distprof.plain import dataclass

#: The replay of the times as they were may be so far from the measured iteration.
REPLAY_WITHIN = 0.1
_ENQUEUE, _WAIT, _END = 0, 1, 2
_ORDINAL = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Program:
    """What one rank did, in order: its own time before each event, and the event."""

    kind: IntArray
    event: IntArray  # of an enqueue or wait; the step of an end
    own_ns: FloatArray
    segment: IntArray  # step * 2**32 + the enqueues of the step before the event
    start_ns: int  # since the first rank's start
    ends_ns: FloatArray  # when each step ended, since then


@dataclass(frozen=True)
class Cost:
    """Of one iteration: the median over steps of what it takes longer for the slow ranks."""

    cost_ns: float
    replayed_ns: float
    measured_ns: float


@dataclass(frozen=True, eq=False)
class Replayed:
    """The programs of all ranks, and the lengths of the steps that they give without a change."""

    ranks: tuple[int, ...]
    programs: list[Program]
    steps: FloatArray
    measured_ns: float


@computed_once
def replayed(analysis: Analysis) -> Replayed | None:
    """Returns the replay of the run as it was; None where it cannot be replayed, or does not give what was measured."""
    waits = None if why_no_own_times(analysis) else collective_waits(analysis)
    if waits is None:
        return None
    programs = _programs(analysis, waits)
    if programs is None:
        return None
    ranks = waits.entries.ranks
    steps = replay(programs, [program.own_ns for program in programs], len(waits.entries.iterations))
    measured = float(middle(_steps(programs, np.stack([program.ends_ns for program in programs]))))
    if steps is None or abs(float(middle(steps)) - measured) > REPLAY_WITHIN * measured:
        return None
    return Replayed(ranks, programs, steps, measured)


def cost_of(analysis: Analysis, slow: Iterable[int]) -> Cost | None:
    """Returns what ``slow`` ranks cost together, by all own time above the medians; None where it cannot be said."""
    return _cost(analysis, dict.fromkeys(slow, np.inf))


def cost_of_excess(analysis: Analysis, excess_ns: Mapping[int, float]) -> Cost | None:
    """Returns what ranks cost together, by what each loses in an iteration (ns); None where it cannot be said.

    The run is replayed once for the same ranks and losses.
    """
    known, losses = _known_costs(analysis), tuple(sorted(excess_ns.items()))
    if losses not in known:
        known[losses] = _cost(analysis, excess_ns)
    return known[losses]


@computed_once
def _known_costs(analysis: Analysis) -> dict[tuple[tuple[int, float], ...], Cost | None]:
    """Returns the costs that were computed so far, by the ranks and what each of them loses."""
    return {}


def _cost(analysis: Analysis, excess_ns: Mapping[int, float]) -> Cost | None:
    as_it_was = replayed(analysis)
    if as_it_was is None:
        return None
    ranks, programs = as_it_was.ranks, as_it_was.programs
    lost = [excess_ns.get(rank) for rank in ranks]
    faster = _without_excess(programs, [analysis.cohorts[rank] for rank in ranks], lost)
    without = replay(programs, faster, len(as_it_was.steps))
    if without is None:
        return None
    cost_ns = float(middle(as_it_was.steps - without))
    return Cost(cost_ns, float(middle(as_it_was.steps)), as_it_was.measured_ns)


def _programs(analysis: Analysis, waits: Waits) -> list[Program] | None:
    """Returns the program of each rank; None where a step has no timeline, or ranks timed different steps."""
    found, entries = recorded(analysis), waits.entries
    if any(own.iterations != entries.iterations or not own.start_ns.all() for own in found.values()):
        return None
    clock = clock_of(analysis)
    starts = {rank: on_job_clock(clock.of(rank), own.start_ns) for rank, own in found.items()}
    ends = {rank: on_job_clock(clock.of(rank), own.end_ns) for rank, own in found.items()}
    first = min(int(moments[0]) for moments in starts.values())
    waited, lost = _dependent(waits)
    waited_of = slices_of(waits.gaps.column[waits.gap[waited]], len(entries.ranks))
    return [
        _program(waits, entries.of_rank[column], waited[own], lost[own], starts[rank], ends[rank], first)
        for column, (rank, own) in enumerate(zip(entries.ranks, waited_of, strict=True))
    ]


def _dependent(waits: Waits) -> tuple[IntArray, IntArray]:
    """Returns the waits that end with the last of those that take part, and the time until that one came.

    The wait for a send may end before its receiver comes: then it depends on nobody, and its time is the rank's own.
    What follows in a wait when all have come is own time too.
    """
    entries, gaps = waits.entries, waits.gaps
    last = largest_of_each(entries.event, entries.enqueued_ns, int(entries.event.max(initial=-1)) + 1)
    all_came = last[entries.event[waits.entry]]
    depends = np.flatnonzero(all_came <= gaps.end_ns[waits.gap])
    return depends, np.maximum(all_came[depends] - gaps.start_ns[waits.gap[depends]], 0)


def _program(
    waits: Waits, own: slice, waited: IntArray, lost: IntArray, starts: IntArray, ends: IntArray, first: int
) -> Program:
    """Returns the program of the rank that has the entries ``own``, and lost ``lost`` in the waits ``waited``."""
    entries, gaps, count = waits.entries, waits.gaps, own.stop - own.start
    gap = waits.gap[waited]
    moments = np.concatenate([entries.enqueued_ns[own], gaps.start_ns[gap], ends])
    kind = np.repeat([_ENQUEUE, _WAIT, _END], [count, len(gap), len(ends)])
    event = np.concatenate([entries.event[own], entries.event[waits.entry[waited]], np.arange(len(ends))])
    step = np.concatenate([entries.step[own], gaps.step[gap], np.arange(len(ends))])
    lost = np.concatenate([np.zeros(count, np.int64), lost, np.zeros(len(ends), np.int64)])
    order = np.lexsort((kind, moments))
    moments, kind, event, step, lost = (column[order] for column in (moments, kind, event, step, lost))
    free = np.append(starts[0], (moments + lost)[:-1])  # from when on the rank works again
    enqueued = np.cumsum(kind == _ENQUEUE) - (kind == _ENQUEUE)
    ordinal = enqueued - enqueued[np.searchsorted(step, step)]
    own_ns = np.maximum(moments - np.maximum.accumulate(free), 0).astype(np.float64)
    segment = (step.astype(np.int64) << 32) + ordinal
    return Program(kind, event, own_ns, segment, int(starts[0]) - first, (ends - first).astype(np.float64))


def _without_excess(
    programs: Sequence[Program], cohorts: Sequence[int], lost_ns: Sequence[float | None]
) -> list[FloatArray]:
    """Returns the own times of all ranks, without what the slow ones lose; None stands for a rank that is not slow."""
    every = list(zip(programs, cohorts, lost_ns, strict=True))
    medians = {
        cohort: _medians([program for program, other, lost in every if other == cohort and lost is None])
        for cohort in {cohort for _, cohort, lost in every if lost is not None}
    }
    return [
        program.own_ns if lost is None else program.own_ns * _factors(program, *medians[cohort], lost)
        for program, cohort, lost in every
    ]


def _medians(programs: Sequence[Program]) -> tuple[IntArray, FloatArray]:
    """Returns the segments of these ranks, ascending, and the median of their own times in each."""
    if not programs:
        return np.zeros(0, np.int64), np.zeros(0)
    parts = [_by_segment(program) for program in programs]
    segment, total = (np.concatenate(column) for column in zip(*((own, sums) for own, sums, _ in parts), strict=True))
    order = np.lexsort((total, segment))
    segments, first, size = np.unique(segment[order], return_index=True, return_counts=True)
    ordered = total[order]
    return segments, (ordered[first + (size - 1) // 2] + ordered[first + size // 2]) / 2


def _factors(program: Program, segments: IntArray, medians: FloatArray, lost_ns: float) -> FloatArray:
    """Returns by event what the own time before it becomes, as a multiple; 1 where the others have no such segment."""
    own, total, where = _by_segment(program)
    place = np.minimum(np.searchsorted(segments, own), max(len(segments) - 1, 0))
    known = (segments[place] == own) & (total > 0) if len(segments) else np.zeros(len(own), bool)
    excess = np.zeros(len(own))
    excess[known] = total[known] - medians[place[known]]
    share = _shares(own & _ORDINAL, excess, lost_ns) if np.isfinite(lost_ns) else np.ones(len(own))
    return (1 - share * excess / np.where(total > 0, total, 1))[where]


def _shares(ordinal: IntArray, excess: FloatArray, lost_ns: float) -> FloatArray:
    """Returns by segment which share of its excess is what a rank loses: all of the segments with the largest excess,
    the median over steps, until these have it all.
    """
    ordinals, group = np.unique(ordinal, return_inverse=True)
    order = np.lexsort((excess, group))
    first, size = np.searchsorted(group[order], np.arange(len(ordinals))), np.bincount(group)
    middle = (excess[order][first + (size - 1) // 2] + excess[order][first + size // 2]) / 2
    largest = np.argsort(-middle, kind="stable")
    above = np.maximum(middle[largest], 0)
    left = np.maximum(lost_ns - (np.cumsum(above) - above), 0)
    share = np.zeros(len(ordinals))
    share[largest] = np.where(above > 0, np.minimum(left / np.maximum(above, 1), 1), 0)
    found: FloatArray = share[group]
    return found


def _by_segment(program: Program) -> tuple[IntArray, FloatArray, IntArray]:
    """Returns the segments, the own time in each, and by event the place of its segment."""
    segments, where = np.unique(program.segment, return_inverse=True)
    sums = np.bincount(where, program.own_ns).astype(np.float64)
    return segments, sums, where.astype(np.int64)


def replay(programs: Sequence[Program], own_ns: Sequence[FloatArray], steps: int) -> FloatArray | None:
    """Returns the time of each step, from the last rank's end of the step before to the last rank's end; None where
    ranks would wait for each other for ever.
    """
    run = _Replay(programs, own_ns, steps)
    if not run.ends_reached():
        return None
    return _steps(programs, run.ends)


def _steps(programs: Sequence[Program], ends: FloatArray) -> FloatArray:
    """Returns the time of each step, from the ends of the ranks' steps: (ranks, steps) to (steps)."""
    first = min(program.start_ns for program in programs)
    times: FloatArray = np.diff(np.concatenate([[first], ends.max(axis=0)]))
    return times


class _Replay:
    """Runs the programs of all ranks together: in a round, each that can go on does so until its next wait.

    The arrays have the events of all programs, one program after another.
    """

    def __init__(self, programs: Sequence[Program], own_ns: Sequence[FloatArray], steps: int) -> None:
        self.ends = np.zeros((len(programs), steps))  # (ranks, steps): when a rank ended a step
        lengths = np.array([len(program.kind) for program in programs], np.int64)
        self._kind = np.concatenate([program.kind for program in programs])
        self._event = np.concatenate([program.event for program in programs])
        self._worked = np.concatenate([[0.0], np.cumsum(np.concatenate(own_ns))])  # before each event, since the first
        self._rank = np.repeat(np.arange(len(programs)), lengths)
        self._beyond = np.cumsum(lengths)
        waits = np.append(np.flatnonzero(self._kind == _WAIT), len(self._kind))
        next_wait = waits[np.searchsorted(waits, np.arange(len(self._kind) + 1))]
        # By event: the next wait, or the end of the program.
        self._stop: IntArray = np.minimum(next_wait[:-1], self._beyond[self._rank])
        events = int(self._event.max(initial=-1)) + 1
        self._missing = np.bincount(self._event[self._kind == _ENQUEUE], minlength=events)  # those who have not come
        self._last = np.zeros(events)  # by event: when the last so far came
        self._now = np.array([float(program.start_ns) for program in programs])
        self._place: IntArray = self._beyond - lengths

    def ends_reached(self) -> bool:
        """Runs all programs; returns whether each came to its end."""
        going = waiting = np.flatnonzero(self._place < self._beyond)
        while len(going):
            self._advance(going)
            waiting = waiting[self._place[waiting] < self._beyond[waiting]]
            event = self._event[self._place[waiting]]
            free = self._missing[event] == 0
            going = waiting[free]
            self._now[going] = np.maximum(self._now[going], self._last[event[free]])
            self._place[going] += 1
            waiting = waiting[self._place[waiting] < self._beyond[waiting]]
            going = going[self._place[going] < self._beyond[going]]
        return not len(waiting)

    def _advance(self, ranks: IntArray) -> None:
        """Runs ranks, which do not wait, until the next wait of each."""
        place = self._place[ranks]
        stop = self._stop[place]
        began = self._now[ranks] - self._worked[place]  # the clock at the program's begin, if it had not waited
        events = ragged(place, stop - place)
        moments = np.repeat(began, stop - place) + self._worked[events + 1]
        enqueues, ends = (np.flatnonzero(self._kind[events] == kind) for kind in (_ENQUEUE, _END))
        event = self._event[events[enqueues]]
        np.maximum.at(self._last, event, moments[enqueues])
        np.subtract.at(self._missing, event, 1)
        self.ends[self._rank[events[ends]], self._event[events[ends]]] = moments[ends]
        self._place[ranks] = stop
        # A rank that reaches a wait has done the work before it.
        self._now[ranks] = began + self._worked[stop + (stop < self._beyond[ranks])]
