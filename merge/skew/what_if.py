"""What slow ranks cost: the iteration is replayed with them as fast as the others of their cohort.

    enqueues and waits of each rank, with its own time before each -> replay -> the same with other own times -> the
    difference of an iteration

In a replay a rank works, enqueues, and waits until the last member has enqueued, where it waited in the run.  The own
times of slow ranks are set to the median of their cohort between the same enqueues, for all of them jointly.  Where the
replay of the times as they were does not give the iteration that was measured, there is no answer.
"""

from __future__ import annotations

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
    expected: dict[int, int] = {}
    for program in programs:
        for event in program.event[program.kind == _ENQUEUE].tolist():
            expected[event] = expected.get(event, 0) + 1
    entered: dict[int, int] = {}
    released: dict[int, float] = {}
    waiting: dict[int, list[int]] = {}
    ends = np.zeros((len(programs), steps))
    plans = [
        list(zip(program.kind.tolist(), program.event.tolist(), own.tolist(), strict=True))
        for program, own in zip(programs, own_ns, strict=True)
    ]
    now = [float(program.start_ns) for program in programs]
    at, worked = [0] * len(programs), [False] * len(programs)
    ready = list(range(len(programs)))
    while ready:
        rank = ready.pop()
        plan = plans[rank]
        while at[rank] < len(plan):
            kind, event, own = plan[at[rank]]
            if not worked[rank]:
                now[rank] += own
                worked[rank] = True
            if kind == _ENQUEUE:
                entered[event] = entered.get(event, 0) + 1
                released[event] = max(released.get(event, 0.0), now[rank])
                if entered[event] == expected[event]:
                    ready += waiting.pop(event, [])
            elif kind == _WAIT:
                if entered.get(event, 0) < expected[event]:
                    waiting.setdefault(event, []).append(rank)
                    break
                now[rank] = max(now[rank], released[event])
            else:
                ends[rank, event] = now[rank]
            at[rank] += 1
            worked[rank] = False
    if any(place < len(plan) for place, plan in zip(at, plans, strict=True)):
        return None
    last = ends.max(axis=0)
    first = min(program.start_ns for program in programs)
    return np.diff(np.concatenate([[first], last]))
