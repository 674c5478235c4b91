"""What slow ranks cost: the iteration is replayed with them as fast as the others of their cohort.

    enqueues and waits of each rank, with its own time before each -> replay -> the same with other own times -> the
    difference of an iteration

In a replay a rank works, enqueues, and waits until the last member has enqueued, where it waited in the run.  The own
times of slow ranks are set to the median of their cohort between the same enqueues, for all of them jointly.  Where the
replay of the times as they were does not give the iteration that was measured, there is no answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.clock.section import clock_of
from distprof.merge.collectives.join import recorded
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.collectives.waits import Waits, collective_waits

#: The replay of the times as they were may be so far from the measured iteration.
REPLAY_WITHIN = 0.1
#: Replays of more events would take longer than all the rest of the merge: then no cost is given.
MOST_EVENTS = 300_000
_ENQUEUE, _WAIT, _END = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Program:
    """What one rank did, in order: its own time before each event, and the event."""

    kind: IntArray
    event: IntArray  # of an enqueue or wait; the step of an end
    own_ns: FloatArray
    segment: IntArray  # step * 2**32 + the enqueues of the step before the event
    start_ns: int  # since the first rank's start


@dataclass(frozen=True)
class Cost:
    """Of one iteration: the median over steps of what it takes longer for the slow ranks."""

    cost_ns: float
    replayed_ns: float
    measured_ns: float


def cost_of(analysis: Analysis, slow: Collection[int]) -> Cost | None:
    """Returns what ``slow`` ranks cost together; None where it cannot be said."""
    waits = None if why_no_own_times(analysis) else collective_waits(analysis)
    if waits is None or len(waits.entries) > MOST_EVENTS:
        return None
    programs = _programs(analysis, waits)
    if programs is None:
        return None
    ranks, steps = waits.entries.ranks, len(waits.entries.iterations)
    own = [program.own_ns for program in programs]
    faster = _at_median(programs, [analysis.cohorts[rank] for rank in ranks], [rank in slow for rank in ranks])
    as_it_was, without = replay(programs, own, steps), replay(programs, faster, steps)
    if as_it_was is None or without is None:
        return None
    measured = float(np.median([np.median(analysis.timed_windows[rank].durations_ns) for rank in ranks]))
    replayed = float(np.median(as_it_was))
    if abs(replayed - measured) > REPLAY_WITHIN * measured:
        return None
    return Cost(float(np.median(as_it_was - without)), replayed, measured)


def _programs(analysis: Analysis, waits: Waits) -> list[Program] | None:
    """Returns the program of each rank; None where a step has no timeline, or ranks timed different steps."""
    found, entries = recorded(analysis), waits.entries
    if any(own.iterations != entries.iterations or not own.start_ns.all() for own in found.values()):
        return None
    clock = clock_of(analysis)
    starts = {rank: on_job_clock(clock.of(rank), own.start_ns) for rank, own in found.items()}
    ends = {rank: on_job_clock(clock.of(rank), own.end_ns) for rank, own in found.items()}
    first = min(int(moments[0]) for moments in starts.values())
    return [_program(column, waits, starts[rank], ends[rank], first) for column, rank in enumerate(entries.ranks)]


def _program(column: int, waits: Waits, starts: IntArray, ends: IntArray, first: int) -> Program:
    entries = waits.entries
    own = np.flatnonzero(entries.column == column)
    waited = np.flatnonzero(waits.gaps.column[waits.gap] == column)
    moments = np.concatenate([entries.enqueued_ns[own], waits.gaps.start_ns[waits.gap[waited]], ends])
    kind = np.repeat([_ENQUEUE, _WAIT, _END], [len(own), len(waited), len(ends)])
    event = np.concatenate([entries.event[own], entries.event[waits.entry[waited]], np.arange(len(ends))])
    step = np.concatenate([entries.step[own], waits.gaps.step[waits.gap[waited]], np.arange(len(ends))])
    lost = np.concatenate([np.zeros(len(own), np.int64), waits.wait_ns[waited], np.zeros(len(ends), np.int64)])
    order = np.lexsort((kind, moments))
    moments, kind, event, step, lost = (column[order] for column in (moments, kind, event, step, lost))
    free = np.append(starts[0], (moments + lost)[:-1])  # from when on the rank works again
    enqueued = np.cumsum(kind == _ENQUEUE) - (kind == _ENQUEUE)
    ordinal = enqueued - enqueued[np.searchsorted(step, step)]
    own_ns = np.maximum(moments - np.maximum.accumulate(free), 0).astype(np.float64)
    return Program(kind, event, own_ns, (step.astype(np.int64) << 32) + ordinal, int(starts[0]) - first)


def _at_median(programs: Sequence[Program], cohorts: Sequence[int], slow: Sequence[bool]) -> list[FloatArray]:
    """Returns the own times of all ranks, those of the slow ones at the median of the others of their cohort, between
    the same two enqueues.
    """
    sums: dict[int, dict[int, list[float]]] = {}
    for program, cohort, is_slow in zip(programs, cohorts, slow, strict=True):
        if not is_slow:
            of_cohort = sums.setdefault(cohort, {})
            for segment, total in _by_segment(program).items():
                of_cohort.setdefault(segment, []).append(total)
    found = []
    for program, cohort, is_slow in zip(programs, cohorts, slow, strict=True):
        if not is_slow or cohort not in sums:
            found.append(program.own_ns)
            continue
        factors = {
            segment: float(np.median(sums[cohort][segment])) / total if total and segment in sums[cohort] else 1.0
            for segment, total in _by_segment(program).items()
        }
        found.append(program.own_ns * np.array([factors[segment] for segment in program.segment.tolist()]))
    return found


def _by_segment(program: Program) -> Mapping[int, float]:
    segments, where = np.unique(program.segment, return_inverse=True)
    return dict(zip(segments.tolist(), np.bincount(where, program.own_ns).tolist(), strict=True))


def replay(programs: Sequence[Program], own_ns: Sequence[FloatArray], steps: int) -> npt.NDArray[np.float64] | None:
    """Returns the time of each step, from the last rank's end of the step before to the last rank's end; None where
    ranks would wait for each other for ever.
    """
    run = _Replay(programs, own_ns, steps)
    if not run.ends_reached():
        return None
    first = min(program.start_ns for program in programs)
    return np.diff(np.concatenate([[first], run.ends.max(axis=0)]))


class _Replay:
    """Runs the programs of all ranks, each as far as it comes without the others."""

    def __init__(self, programs: Sequence[Program], own_ns: Sequence[FloatArray], steps: int) -> None:
        self.ends = np.zeros((len(programs), steps))  # (ranks, steps): when a rank ended a step
        self._plans = [
            list(zip(program.kind.tolist(), program.event.tolist(), own.tolist(), strict=True))
            for program, own in zip(programs, own_ns, strict=True)
        ]
        enqueued = (program.event[program.kind == _ENQUEUE].tolist() for program in programs)
        self._missing = Counter(event for events in enqueued for event in events)  # by event: those who have not come
        self._last: dict[int, float] = {}  # by event: when the last so far came
        self._waiting: dict[int, list[int]] = {}  # by event: the ranks that wait for it
        self._now = [float(program.start_ns) for program in programs]
        self._place = [0] * len(programs)
        self._has_worked = [False] * len(programs)  # whether the own time before the next event has passed

    def ends_reached(self) -> bool:
        """Runs all programs; returns whether each came to its end."""
        ready = list(range(len(self._plans)))
        while ready:
            ready += self._advance(ready.pop())
        return all(place == len(plan) for place, plan in zip(self._place, self._plans, strict=True))

    def _advance(self, rank: int) -> list[int]:
        """Runs a rank to its end, or to a wait for ranks that have not come; returns the ranks that can go on now."""
        freed: list[int] = []
        plan = self._plans[rank]
        while self._place[rank] < len(plan):
            kind, event, own = plan[self._place[rank]]
            if not self._has_worked[rank]:
                self._now[rank] += own
                self._has_worked[rank] = True
            if kind == _WAIT and self._missing[event]:
                self._waiting.setdefault(event, []).append(rank)
                break
            if kind == _ENQUEUE:
                freed += self._enqueue(rank, event)
            elif kind == _WAIT:
                self._now[rank] = max(self._now[rank], self._last.get(event, 0.0))
            else:
                self.ends[rank, event] = self._now[rank]
            self._place[rank] += 1
            self._has_worked[rank] = False
        return freed

    def _enqueue(self, rank: int, event: int) -> list[int]:
        """Enters a rank; returns the ranks that waited for it, if it was the last."""
        self._missing[event] -= 1
        self._last[event] = max(self._last.get(event, 0.0), self._now[rank])
        return [] if self._missing[event] else self._waiting.pop(event, [])
