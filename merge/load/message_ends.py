"""The ends of the messages between ranks, by which the clocks of hosts are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distprof.records import Collectives

#: Messages of each pair of ranks that are kept: both ends keep the same ones.
_KEPT = 100


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
        for index in ((record.peer >= 0) & (record.number < _KEPT)).nonzero()[0].tolist()
        if (found := _end(rank, record, index)) is not None
    )


def _end(rank: int, record: Collectives, index: int) -> MessageEnd | None:
    peer, tag, number = (int(column[index]) for column in (record.peer, record.tag, record.number))
    op, name = record.ops[record.op[index]], record.group_names[record.group[index]]
    if op == "send":
        return MessageEnd((name, rank, peer, tag, record.window, number), int(record.enqueued_ns[index]), True)
    received = int(record.waited_until_ns[index]) if len(record.waited_until_ns) else 0
    return MessageEnd((name, peer, rank, tag, record.window, number), received, False) if received else None
