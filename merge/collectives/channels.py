"""What joins the entries of ranks: the channel of each, and its number in this channel.

A channel is the collectives of one group, or the messages from one rank to another.  Members are part of a group's
channel, because ranks may give one name to different groups; the name is, because two groups may have the same members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import IntArray, combination, largest_of_each
from distprof.plain import dataclass
from distprof.records import CollectiveWindow

_NUMBER_BITS = 40


class Channel(NamedTuple):
    """The collectives of one group, or the messages from one of its ranks to another."""

    group: str
    members: tuple[int, ...]  # in the order of the group
    source: int  # -1 of collectives
    destination: int  # -1 of collectives
    tag: int  # 0 of collectives

    @property
    def is_of_messages(self) -> bool:
        return self.source >= 0

    @property
    def participants(self) -> tuple[int, ...]:
        """The ranks that enqueue each collective, or the two of each message."""
        return (self.source, self.destination) if self.is_of_messages else self.members


@dataclass(frozen=True, eq=False)
class Ends:
    """What says where each of some entries of a rank belongs: a group of its groups, and of a message the other end."""

    group_names: Sequence[str]
    ops: Sequence[str]
    group: npt.NDArray[Any]  # index in group_names
    op: npt.NDArray[Any]  # index in ops
    peer: npt.NDArray[Any]  # -1: a collective
    tag: npt.NDArray[Any]

    @property
    def sends(self) -> IntArray:
        """By entry: 1 for the sending end of a message, else 0."""
        named = np.array([name == "send" for name in self.ops], np.int64)
        return named[self.op] if len(named) else np.zeros(0, np.int64)


class Channels:
    """The channels of a job, numbered from 0 as they are met.

    The collectives of a group whose members its rank does not know have a channel of their own on each rank, with this
    rank as the only member: a group of the same name on another rank may be another group.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Channel, bool], int] = {}  # whether the members are known

    @property
    def found(self) -> tuple[Channel, ...]:
        """All channels, by number."""
        return tuple(channel for channel, _ in self._numbers)

    @property
    def sizes(self) -> IntArray:
        """By channel the number of entries that one collective or message has; 0: not known."""
        return np.array([len(channel.participants) * known for channel, known in self._numbers], np.int64)

    def of_entries(self, rank: int, ends: Ends, members: Mapping[str, tuple[int, ...]]) -> IntArray:
        """Returns the number of the channel of each entry of a rank; ``members`` are those of its groups, by name."""
        keys = ends.group, ends.peer, ends.tag, ends.sends
        _, first, where = np.unique(combination(keys), return_index=True, return_inverse=True)
        numbers = []
        for group, peer, tag, send in zip(*(key[first].tolist() for key in keys), strict=True):
            name = ends.group_names[group]
            known = peer >= 0 or name in members
            source, destination = (-1, -1) if peer < 0 else (rank, peer) if send else (peer, rank)
            channel = Channel(name, members.get(name, () if known else (rank,)), source, destination, tag)
            numbers.append(self._numbers.setdefault((channel, known), len(self._numbers)))
        found: IntArray = np.array(numbers, np.int64)[where.reshape(-1)]
        return found


def group_members(window: CollectiveWindow | None, world_size: int) -> dict[str, tuple[int, ...]]:
    """Returns by name the members of the groups of a rank."""
    groups = window.groups if window is not None else ()
    return {group.name: group.ranks or _all_ranks(world_size) for group in groups}


@lru_cache(maxsize=1)
def _all_ranks(world_size: int) -> tuple[int, ...]:
    """Returns the ranks of the job as one object: comparing a group with itself is then free."""
    return tuple(range(world_size))


@dataclass(frozen=True, eq=False)
class Events:
    """The collectives and messages that entries belong to."""

    of_entry: IntArray  # from 0
    channel: IntArray  # by event
    last_ns: IntArray  # by event: when the last of its entries was enqueued
    entries: IntArray  # by event: how many are known


def join(channel: IntArray, number: IntArray, moments_ns: IntArray) -> Events:
    """Joins entries: those of one channel and number are one collective, or the two ends of one message."""
    keys, of_entry = np.unique(channel.astype(np.int64) << _NUMBER_BITS | number, return_inverse=True)
    last = largest_of_each(of_entry, moments_ns, len(keys))
    return Events(of_entry, keys >> _NUMBER_BITS, last, np.bincount(of_entry, minlength=len(keys)))
