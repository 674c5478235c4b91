"""The gaps of the training threads: times between two signs of life, in which a thread may have waited.

Signs of life are the events of modules, the phases of the iteration, the thread's own enqueues, and the begin and the
end of its waits for messages.  Only long turns are recorded, so a gap is a long turn, or a part of one between two of
these.  Its *identity* is the same on ranks that do the same work, and in every step: (owner of the turn, number of the
turn, signs of life in it before the gap).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray, distinct, ragged
from distprof.merge.clock.offsets import JobClock
from distprof.merge.collectives.join import JoinedEntries, entry_order, recorded, slices_of
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.load.collectives import RankCollectives
from distprof.plain import dataclass
from distprof.records import NO_ROW, PHASES


@dataclass(frozen=True, eq=False)
class Gaps:
    """Of all ranks, by rank, then time.  Moments are on the clock of the joined entries."""

    column: npt.NDArray[np.int32]  # index in JoinedEntries.ranks
    step: npt.NDArray[np.int32]  # index in JoinedEntries.iterations
    owner: IntArray  # module of the union, ~module in its backward, or NO_ROW
    turn: IntArray
    part: IntArray  # of the turn
    phase: npt.NDArray[np.int32]  # index in PHASES; -1 where it is not known
    start_ns: IntArray
    end_ns: IntArray
    message: IntArray  # the joined entry of the message for which the thread waits from start to end; -1: none
    after_enqueue: IntArray  # by joined entry: the gap that begins with its enqueue; -1: it was short, and is not known

    def __len__(self) -> int:
        return len(self.column)

    @cached_property
    def of_rank(self) -> list[slice]:
        """The gaps of each rank, in the order of JoinedEntries.ranks."""
        return slices_of(self.column, int(self.column[-1]) + 1 if len(self) else 0)


def training_gaps(analysis: Analysis, entries: JoinedEntries, clock: JobClock) -> Gaps:
    """Returns the gaps of all ranks that recorded their collectives."""
    found = recorded(analysis)
    rows_of = {data.rank: analysis.union.index(number) for number, data in enumerate(analysis.ranks)}
    iterations, gaps_before = np.array(entries.iterations), 0
    parts = []
    for column, (rank, own_entries) in enumerate(zip(entries.ranks, entries.of_rank, strict=True)):
        own = found[rank]
        part = _rank_gaps(own, rows_of[rank])
        message, after_enqueue = _entries_at(own, part["start_ns"])
        part["message"] = np.where(message >= 0, message + own_entries.start, -1)
        part["after_enqueue"] = np.where(after_enqueue >= 0, after_enqueue + gaps_before, -1)
        part["step"] = np.searchsorted(iterations, np.array(own.iterations))[part["step"]].astype(np.int32)
        part["column"] = np.full(len(part["step"]), column, np.int32)
        for moment in ("start_ns", "end_ns"):
            part[moment] = on_job_clock(clock.of(rank), part[moment])
        gaps_before += len(part["step"])
        parts.append(part)
    return Gaps(**{name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])})


def _rank_gaps(own: RankCollectives, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
    """Returns the gaps of a rank on its own clock, by time."""
    turns, entries = own.turns, own.entries
    on_thread, waited = entries.enqueued_ns[entries.thread != 0], entries.waited_from_ns > 0
    waits = entries.waited_from_ns[waited], entries.waited_until_ns[waited]
    signs = distinct(np.concatenate([on_thread, own.phases.start_ns, *waits]))
    turn = np.searchsorted(turns.start_ns, signs, side="right") - 1
    inside = turn >= 0
    inside[inside] = (signs[inside] > turns.start_ns[turn[inside]]) & (signs[inside] < turns.end_ns[turn[inside]])
    start = np.concatenate([turns.start_ns, signs[inside]])
    of_turn = np.concatenate([np.arange(len(turns.start_ns)), turn[inside]])
    order = np.lexsort((start, of_turn))
    start, of_turn = start[order], of_turn[order]
    last = np.append(of_turn[1:] != of_turn[:-1], True)[: len(of_turn)]
    following = np.append(start[1:], 0)[: len(start)]
    return {
        "step": turns.step[of_turn],
        "owner": _in_union(turns.owner[of_turn].astype(np.int64), rows),
        "turn": turns.number[of_turn],
        "part": np.arange(len(of_turn)) - np.searchsorted(of_turn, of_turn),
        "phase": _phase_at(own, start).astype(np.int32),
        "start_ns": start,
        "end_ns": np.where(last, turns.end_ns[of_turn], following),
    }


def _entries_at(own: RankCollectives, start: IntArray) -> tuple[IntArray, IntArray]:
    """Returns by gap the entry for whose message the thread waits in it, and by entry the gap that begins with its
    enqueue; -1: none.  Entries are numbered in their joined order.
    """
    order, entries = entry_order(own), own.entries
    began, ended, enqueued = (
        column[order] for column in (entries.waited_from_ns, entries.waited_until_ns, entries.enqueued_ns)
    )
    waited = np.flatnonzero(began > 0)
    first, beyond = np.searchsorted(start, began[waited]), np.searchsorted(start, ended[waited])
    number = np.maximum(beyond - first, 0)
    message = np.full(len(start), -1)
    message[ragged(first, number)] = np.repeat(waited, number)
    after = np.searchsorted(start, enqueued)
    known = after < len(start)
    known[known] = start[after[known]] == enqueued[known]
    return message, np.where(known, after, -1)


def _in_union(owner: IntArray, rows: IntArray) -> IntArray:
    """Returns owners as modules of the union."""
    found = np.full_like(owner, NO_ROW)
    forward, backward = (owner >= 0) & (owner < len(rows)), (owner < 0) & (owner >= -len(rows))
    found[forward] = rows[owner[forward]]
    found[backward] = ~rows[~owner[backward]]
    return found


def _phase_at(own: RankCollectives, moments: IntArray) -> IntArray:
    """Returns the phase in which each moment lies, as an index in PHASES."""
    if not len(own.phases.start_ns):
        return np.full(len(moments), -1, np.int64)
    known = np.array([PHASES.index(name) if name in PHASES else -1 for name in own.phase_names], np.int64)
    at = np.searchsorted(own.phases.start_ns, moments, side="right") - 1
    return np.where(at >= 0, known[own.phases.phase[np.maximum(at, 0)]], -1)
