"""Where ranks meet: the members of one collective, and the two ends of one message, over the shards of all ranks.

records of each rank -> channels and numbers, window by window -> joined as those of the timed steps are
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.clock.offsets import RankClock
from distprof.merge.collectives.channels import Channels, Ends, group_members, join
from distprof.records import Collectives, CollectiveWindow, Record


@dataclass(frozen=True)
class Meeting:
    """One collective or message, as far as it was recorded."""

    number: int  # among all meetings, from 1
    members: int  # that recorded it
    last_ns: int  # when the last of them enqueued it
    last_rank: int
    comparable: bool  # whether all of them stand on one clock


@dataclass(frozen=True, eq=False)
class _Part:
    """The entries of one record."""

    rank: int
    window: int
    comparable: bool
    channel: IntArray
    number: IntArray
    moments_ns: IntArray


class Meetings:
    """Is given the records of all ranks first, and joins them when it is asked."""

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._channels: dict[int, Channels] = {}  # by window: in each, messages are numbered from 0
        self._parts: list[_Part] = []
        self._parts_of: dict[int, list[int]] = {}  # by rank

    def add(self, rank: int, records: Sequence[Record], clock: RankClock) -> None:
        """Adds all that one rank enqueued."""
        windows = [record for record in records if isinstance(record, CollectiveWindow)]
        members = {one.window: group_members(one, self._world_size) for one in windows}
        for record in collective_records(records):
            ends = Ends(record.group_names, record.ops, record.group, record.op, record.peer, record.tag)
            channels = self._channels.setdefault(record.window, Channels())
            channel = channels.of_entries(rank, ends, members.get(record.window, {}))
            moments_ns = np.array([clock.moment(mono_ns) for mono_ns in record.enqueued_ns.tolist()], np.int64)
            number, comparable = record.number.astype(np.int64), clock.reference is not None
            self._parts_of.setdefault(rank, []).append(len(self._parts))
            self._parts.append(_Part(rank, record.window, comparable, channel, number, moments_ns))

    def of(self, rank: int) -> list[list[Meeting]]:
        """Returns the meetings of a rank's entries, one list for each of its records of collectives."""
        found, of_part = self._joined
        return [[found[event] for event in of_part[part]] for part in self._parts_of.get(rank, ())]

    @cached_property
    def _joined(self) -> tuple[list[Meeting], list[list[int]]]:
        """Returns all meetings, and the places in them of the entries of each part."""
        first, parts = self._first_channels(), self._parts
        if not parts:
            return [], []
        number, moments_ns = (
            np.concatenate([getattr(one, name) for one in parts]) for name in ("number", "moments_ns")
        )
        lengths = [len(one.number) for one in parts]
        rank = np.repeat([one.rank for one in parts], lengths)
        apart = np.repeat([not one.comparable for one in parts], lengths)
        events = join(np.concatenate([one.channel + first[one.window] for one in parts]), number, moments_ns)
        is_last = np.flatnonzero(moments_ns == events.last_ns[events.of_entry])[::-1]
        last_rank = np.zeros(len(events.last_ns), np.int64)
        last_rank[events.of_entry[is_last]] = rank[is_last]  # of ranks that came together, the first
        comparable = np.bincount(events.of_entry, apart, len(last_rank)) == 0
        columns = (events.entries, events.last_ns, last_rank, comparable)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found = [Meeting(place, *row) for place, row in enumerate(rows, start=1)]
        return found, [own.tolist() for own in np.split(events.of_entry, np.cumsum(lengths)[:-1])]

    def _first_channels(self) -> dict[int, int]:
        """Returns by window the number of its first channel among those of all windows."""
        sizes = [len(channels.found) for channels in self._channels.values()]
        return dict(zip(self._channels, [0, *np.cumsum(sizes).tolist()], strict=False))


def collective_records(records: Sequence[Record]) -> Iterator[Collectives]:
    """Yields the records of collectives, in the order in which :class:`Meetings` has them."""
    return (record for record in records if isinstance(record, Collectives))
