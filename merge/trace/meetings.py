"""Where ranks meet: the members of one collective, and the two ends of one message, over the shards of all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from distprof.merge.clock.offsets import RankClock
from distprof.records import Collectives, CollectiveWindow, Record

#: (torch's name of the group, its members, torch's number of the collective), or
#: (name of the group, sender, receiver, tag, window, number of the message).
Key = tuple[object, ...]


@dataclass
class Meeting:
    """One collective or message, as far as it was recorded."""

    number: int  # among all meetings
    members: int  # that recorded it
    last_ns: int  # when the last of them enqueued it
    last_rank: int
    comparable: bool  # whether all of them stand on one clock


@dataclass
class Meetings:
    """Grows with each rank that is added."""

    found: dict[Key, Meeting] = field(default_factory=dict)

    def add(self, rank: int, records: Iterable[Record], clock: RankClock) -> None:
        """Adds all that one rank enqueued."""
        records = list(records)
        members = members_of(records)
        for record in records:
            if isinstance(record, Collectives):
                for index, key in enumerate(keys(rank, record, members)):
                    mono_ns = int(record.enqueued_ns[index])
                    self._meet(key, rank, clock.moment(mono_ns), clock.bound_ns(mono_ns) is not None)

    def _meet(self, key: Key, rank: int, moment_ns: int, comparable: bool) -> None:
        meeting = self.found.get(key)
        if meeting is None:
            self.found[key] = Meeting(len(self.found) + 1, 1, moment_ns, rank, comparable)
            return
        meeting.members += 1
        meeting.comparable &= comparable
        if moment_ns > meeting.last_ns:
            meeting.last_ns, meeting.last_rank = moment_ns, rank


def members_of(records: Iterable[Record]) -> dict[str, tuple[int, ...]]:
    """Returns the members of the rank's groups by torch's name; none: all ranks."""
    windows = [record for record in records if isinstance(record, CollectiveWindow)]
    return {group.name: group.ranks for window in windows for group in window.groups}


def keys(rank: int, record: Collectives, members: dict[str, tuple[int, ...]]) -> Iterator[Key]:
    """Yields what identifies each entry of a record on all ranks that take part."""
    for index in range(len(record.enqueued_ns)):
        name = group_name(record, index)
        number, peer = int(record.number[index]), int(record.peer[index])
        if peer < 0:
            yield name, members.get(name, ("unknown", rank)), number
        else:
            ends = (rank, peer) if _is_send(record, index) else (peer, rank)
            yield name, *ends, int(record.tag[index]), record.window, number


def group_name(record: Collectives, index: int) -> str:
    """Returns torch's name of the group of one entry; records are data from elsewhere, and may name none."""
    return _named(record.group_names, int(record.group[index]))


def op_name(record: Collectives, index: int) -> str:
    return _named(record.ops, int(record.op[index])) or "collective"


def _is_send(record: Collectives, index: int) -> bool:
    return op_name(record, index) == "send"


def _named(names: tuple[str, ...], index: int) -> str:
    return names[index] if 0 <= index < len(names) else ""
