"""What one rank recorded of its collectives, with the long turns and phases of the same steps, as flat arrays.

The records of all steps are joined: each array has an entry for each collective, turn or phase of all steps, and beside
it the index of its step.  Moments are on the rank's monotonic clock.  The ends of the first messages between ranks, by
which the clocks of hosts are checked, are kept beside them for all windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import IntArray
from distprof.plain import dataclass
from distprof.records import Array, Collectives, Pauses, Timeline

NO_TIMELINE = "a step has no timeline"
_SMALL = np.int32
#: Messages of each pair of ranks whose ends are kept: both ends keep the same ones.
_KEPT_MESSAGES = 100


@dataclass(frozen=True, eq=False)
class Entries:
    """Collectives, sends and receives, in the order in which they were enqueued."""

    step: npt.NDArray[np.int32]
    group: npt.NDArray[np.int32]  # index in RankCollectives.group_names
    op: npt.NDArray[np.int32]  # index in RankCollectives.ops
    number: IntArray
    enqueued_ns: IntArray
    bytes: IntArray  # the larger of input and output
    peer: npt.NDArray[np.int32]
    tag: npt.NDArray[np.int32]
    thread: npt.NDArray[np.int32]
    duration_ns: IntArray  # -1: not known
    waited_from_ns: IntArray  # of the wait for a message in Python; 0: not seen
    waited_until_ns: IntArray


@dataclass(frozen=True, eq=False)
class Turns:
    """The long turns of the thread that trains."""

    step: npt.NDArray[np.int32]
    owner: npt.NDArray[np.int32]  # row of the rank's tree, ~row in backward, or records.NO_ROW
    number: IntArray
    start_ns: IntArray
    end_ns: IntArray


@dataclass(frozen=True, eq=False)
class PhaseStarts:
    step: npt.NDArray[np.int32]
    phase: npt.NDArray[np.int32]  # index in RankCollectives.phase_names
    start_ns: IntArray


@dataclass(frozen=True, eq=False)
class RankCollectives:
    """Of the steps that have a record of collectives, a timeline, or both."""

    iterations: tuple[int, ...]
    start_ns: IntArray  # by step, 0 without a timeline
    end_ns: IntArray
    lost: IntArray  # by step: entries that may be missing
    group_names: tuple[str, ...]
    ops: tuple[str, ...]
    phase_names: tuple[str, ...]
    entries: Entries
    turns: Turns
    phases: PhaseStarts
    turns_unseen: str = ""  # why there are no turns of some step, a sentence
    pauses: tuple[Pauses, ...] = ()


def join_steps(
    collectives: Sequence[Collectives],
    timelines: Sequence[Timeline],
    pauses: Sequence[Pauses] = (),
) -> RankCollectives | None:
    """Returns what was recorded; None where there is neither a record of collectives nor a timeline."""
    seen = {record.iteration: record for record in collectives}
    clock = {record.iteration: record for record in timelines}
    iterations = tuple(sorted(seen.keys() | clock.keys()))
    if not iterations:
        return None
    mode = collectives[0].mode if collectives else timelines[0].mode
    steps = [seen.get(iteration, Collectives(iteration, mode)) for iteration in iterations]
    lines = [clock.get(iteration, Timeline(iteration, mode, unseen=NO_TIMELINE)) for iteration in iterations]
    group_names, group = _joined_names([(step.group_names, step.group) for step in steps])
    ops, op = _joined_names([(step.ops, step.op) for step in steps])
    phase_names, phase = _joined_names([(line.phase_names, line.phase) for line in lines])
    return RankCollectives(
        iterations=iterations,
        start_ns=np.array([line.start_ns for line in lines], np.int64),
        end_ns=np.array([line.end_ns for line in lines], np.int64),
        lost=np.array([step.lost for step in steps], np.int64),
        group_names=group_names,
        ops=ops,
        phase_names=phase_names,
        entries=_entries(steps, group, op),
        turns=_turns(lines),
        phases=PhaseStarts(_numbers([len(line.phase) for line in lines]), phase, _joined(lines, "phase_start_ns")),
        turns_unseen=next((line.unseen for line in lines if line.unseen), ""),
        pauses=tuple(pauses),
    )


def _entries(steps: Sequence[Collectives], group: npt.NDArray[np.int32], op: npt.NDArray[np.int32]) -> Entries:
    return Entries(
        step=_numbers([len(step.number) for step in steps]),
        group=group,
        op=op,
        number=_joined(steps, "number"),
        enqueued_ns=_joined(steps, "enqueued_ns"),
        bytes=np.maximum(_joined(steps, "input_bytes"), _joined(steps, "output_bytes")),
        peer=_joined(steps, "peer").astype(_SMALL),
        tag=_joined(steps, "tag").astype(_SMALL),
        thread=_joined(steps, "thread").astype(_SMALL),
        duration_ns=_optional(steps, "duration_ns", -1),
        waited_from_ns=_optional(steps, "waited_from_ns", 0),
        waited_until_ns=_optional(steps, "waited_until_ns", 0),
    )


def _turns(lines: Sequence[Timeline]) -> Turns:
    return Turns(
        step=_numbers([len(line.turn_owner) for line in lines]),
        owner=_joined(lines, "turn_owner").astype(_SMALL),
        number=_joined(lines, "turn_number"),
        start_ns=_joined(lines, "turn_start_ns"),
        end_ns=_joined(lines, "turn_end_ns"),
    )


def _joined(records: Sequence[Collectives] | Sequence[Timeline], name: str) -> IntArray:
    """Returns one array of the records of all steps, in their order."""
    return np.concatenate([getattr(record, name) for record in records]).astype(np.int64)


def _numbers(lengths: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.repeat(np.arange(len(lengths), dtype=_SMALL), lengths)


def _optional(steps: Sequence[Collectives], name: str, unknown: int) -> IntArray:
    """Returns the values of an array that may be empty in some steps."""
    values = [(len(step.number), getattr(step, name)) for step in steps]
    return np.concatenate([own.astype(np.int64) if len(own) else np.full(size, unknown) for size, own in values])


def _joined_names(parts: Sequence[tuple[tuple[str, ...], Array]]) -> tuple[tuple[str, ...], npt.NDArray[np.int32]]:
    """Returns the names of all steps, and the places in them: each step has a list of names of its own."""
    place: dict[str, int] = {}
    found = []
    for names, indices in parts:
        own = np.array([place.setdefault(name, len(place)) for name in names], _SMALL)
        found.append(own[indices] if len(indices) else np.zeros(0, _SMALL))
    return tuple(place), np.concatenate(found)


@dataclass(frozen=True)
class MessageEnd:
    """One end of a message: its sender began to send at ``mono_ns``, or its receiver had received it then."""

    message: tuple[str, int, int, int, int, int]  # name of the group, sender, receiver, tag, window, number
    mono_ns: int
    sends: bool


def message_ends(rank: int, records: Sequence[Collectives]) -> tuple[MessageEnd, ...]:
    """Returns the ends of the first messages of this rank with each other one, as far as their moments are known."""
    return tuple(
        found
        for record in records
        for index in ((record.peer >= 0) & (record.number < _KEPT_MESSAGES)).nonzero()[0].tolist()
        if (found := _end(rank, record, index)) is not None
    )


def _end(rank: int, record: Collectives, index: int) -> MessageEnd | None:
    peer, tag, number = (int(column[index]) for column in (record.peer, record.tag, record.number))
    op, name = record.ops[record.op[index]], record.group_names[record.group[index]]
    if op == "send":
        return MessageEnd((name, rank, peer, tag, record.window, number), int(record.enqueued_ns[index]), True)
    received = int(record.waited_until_ns[index]) if len(record.waited_until_ns) else 0
    return MessageEnd((name, peer, rank, tag, record.window, number), received, False) if received else None
