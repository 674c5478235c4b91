"""The gaps of the training threads: times between two signs of life, in which a thread may have waited.

Signs of life are the events of modules, the phases of the iteration, and the thread's own enqueues.  Only long turns
are recorded, so a gap is a long turn, or a part of one between two enqueues.  Its *identity* is the same on ranks that
do the same work, and in every step: (owner of the turn, number of the turn, signs of life in it before the gap).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.clock.section import clock_of
from distprof.merge.collectives.join import JoinedEntries, recorded
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.load.collectives import RankCollectives
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

    def __len__(self) -> int:
        return len(self.column)


def training_gaps(analysis: Analysis, entries: JoinedEntries) -> Gaps:
    """Returns the gaps of all ranks that recorded their collectives."""
    clock, found = clock_of(analysis), recorded(analysis)
    rows_of = {data.rank: analysis.union.index(number) for number, data in enumerate(analysis.ranks)}
    parts = []
    for column, rank in enumerate(entries.ranks):
        part = _rank_gaps(found[rank], rows_of[rank])
        steps = np.searchsorted(np.array(entries.iterations), np.array(found[rank].iterations))
        part["step"] = steps[part["step"]]
        part["column"] = np.full(len(part["step"]), column)
        for moment in ("start_ns", "end_ns"):
            part[moment] = on_job_clock(clock.of(rank), part[moment])
        parts.append(part)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Gaps(
        column=columns["column"].astype(np.int32),
        step=columns["step"].astype(np.int32),
        owner=columns["owner"],
        turn=columns["turn"],
        part=columns["part"],
        phase=columns["phase"].astype(np.int32),
        start_ns=columns["start_ns"],
        end_ns=columns["end_ns"],
    )


def _rank_gaps(own: RankCollectives, rows: IntArray) -> dict[str, IntArray]:
    turns, entries = own.turns, own.entries
    on_thread = entries.enqueued_ns[entries.thread != 0]
    signs = np.unique(np.concatenate([on_thread, own.phases.start_ns]))
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
        "step": turns.step[of_turn].astype(np.int64),
        "owner": _in_union(turns.owner[of_turn].astype(np.int64), rows),
        "turn": turns.number[of_turn],
        "part": np.arange(len(of_turn)) - np.searchsorted(of_turn, of_turn),
        "phase": _phase_at(own, start),
        "start_ns": start,
        "end_ns": np.where(last, turns.end_ns[of_turn], following),
    }


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
