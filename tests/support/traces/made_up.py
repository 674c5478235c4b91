"""Runs with timelines: what recorders would have written of the steps of :mod:`support.synthetic`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from support.synthetic import MS

from distprof.records import (
    NO_ROW,
    Collectives,
    CollectiveWindow,
    Group,
    Header,
    Pauses,
    Record,
    Step,
    Timeline,
)

#: Turns and collectives of each step.
TURNS, COLLECTIVES = 8, 6


@dataclass(frozen=True)
class TimelineOf:
    """Adds to each step a timeline, all_reduces of all ranks, and a message from each even rank to the next one.

    In the ``n``-th collective of a step rank ``n`` comes last, 1 ms after the others; all end with the step.
    """

    world: int

    def __call__(self, rank: int, records: list[Record]) -> list[Record]:
        header = records[0]
        assert isinstance(header, Header)
        everybody = Group("0", "undefined", ())
        window = CollectiveWindow(groups=(everybody,), source="made up", message_source="made up")
        found: list[Record] = [*records, window]
        for number, step in enumerate(record for record in records if isinstance(record, Step)):
            start = header.mono_ns + step.start_wall_ns - header.wall_ns
            found.append(_timeline(step, start))
            found.append(self._collectives(rank, step, start, number))
            if rank == 0 and number == 0:
                pause = np.array([0]), np.array([start + MS]), np.array([start + 2 * MS])
                found.append(Pauses(step.iteration, step.mode, ("compilation",), *pause))
        return found

    def _collectives(self, rank: int, step: Step, start: int, number: int) -> Collectives:
        count, sends = COLLECTIVES, rank % 2 == 0
        has_message = rank + 1 < self.world if sends else True
        enqueued = [start + n * MS // 2 + MS * (n == rank) for n in range(count)]
        enqueued += [start + 10 * MS] * has_message
        message = len(enqueued) - count
        return Collectives(
            step.iteration,
            step.mode,
            group_names=("0",),
            ops=("all_reduce", "send", "recv"),
            group=np.zeros(len(enqueued), "<i4"),
            number=np.array([*(number * count + n for n in range(count)), *[number] * message], "<i8"),
            op=np.array([0] * count + [1 if sends else 2] * message, "<i4"),
            enqueued_ns=np.array(enqueued, "<i8"),
            input_bytes=np.full(len(enqueued), 4096, "<i8"),
            output_bytes=np.full(len(enqueued), 4096, "<i8"),
            peer=np.array([-1] * count + [rank + 1 if sends else rank - 1] * message, "<i4"),
            tag=np.zeros(len(enqueued), "<i4"),
            thread=np.ones(len(enqueued), "<i4"),
            waited_from_ns=np.array([0] * count + [start + 10 * MS] * message, "<i8"),
            waited_until_ns=np.array([0] * count + [start + 11 * MS] * message, "<i8"),
        )


def _timeline(step: Step, start: int) -> Timeline:
    """The phases one after the other, and turns of 2 ms from the start on."""
    phases = [(phase, time_ns) for phase, time_ns in step.phases_ns.items() if time_ns]
    starts = start + np.cumsum([0, *(time_ns for _, time_ns in phases)])
    turns = start + 2 * MS * np.arange(TURNS)
    owners = [1, 2, ~2, NO_ROW, 3, ~3, 2, 1]
    return Timeline(
        step.iteration,
        step.mode,
        start_ns=start,
        end_ns=start + step.duration_ns,
        phase_names=tuple(phase for phase, _ in phases),
        phase=np.arange(len(phases), dtype="<i4"),
        phase_start_ns=starts[:-1].astype("<i8"),
        turn_owner=np.array(owners, "<i4"),
        turn_number=np.arange(TURNS, dtype="<i8"),
        turn_start_ns=turns.astype("<i8"),
        turn_end_ns=(turns + 2 * MS).astype("<i8"),
    )
