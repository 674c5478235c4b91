"""Timelines: to whom the time belongs, from one turn to the next.

Exactly one owner holds the time at any moment.  ``turn(owner)`` ends the owner before and begins the next, so that what
is recorded is *self* time, nothing is counted twice, and all owners together fill the whole.
"""

from __future__ import annotations

import itertools
import operator
import sys
from array import array
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from distprof.records import Array

#: More are added up at once: a step of so many turns is long, and adding up is nothing to it.
MAX_PACKED = 2_000
Timestamp = Any  # an int of nanoseconds on the CPU, an event on an accelerator


class Timestamps(Protocol):
    """A source of stamps and the way to read their distance."""

    #: Whether a stamp can be read as soon as it is taken.
    immediate: bool

    def now(self) -> Timestamp: ...

    def room(self) -> MutableSequence[Timestamp]:
        """An empty sequence that holds stamps."""

    def ready(self, stamp: Timestamp) -> bool:
        """Whether a distance to this stamp can be read without waiting."""

    def wait(self, stamp: Timestamp) -> None:
        """Wait until it can be read."""

    def length_ns(self, end: Timestamp, start: Timestamp, /) -> int:
        """The distance between two stamps."""

    def lengths_ns(self, stamps: MutableSequence[Any]) -> Array:
        """The distances from each stamp to the next, of stamps in such a room."""

    def packed(self, stamps: MutableSequence[Any]) -> bytes | None:
        """The low 32 bits of each, from which the distances can be told, little-endian; None where they cannot, and
        where they are so many that they are better added up.
        """


class HostTimestamps:
    """The host's monotonic clock: the truth on CPU."""

    immediate = True
    length_ns = staticmethod(operator.sub)

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self.now = mono_ns

    def room(self) -> MutableSequence[int]:
        # No list of ints: it would lie all over the memory, and a step's stamps are no longer in the caches at its end.
        return array("q")

    def ready(self, stamp: int) -> bool:
        return True

    def wait(self, stamp: int) -> None:
        pass

    def lengths_ns(self, stamps: MutableSequence[int]) -> Array:
        numbers: Array = np.frombuffer(cast("array[int]", stamps), np.int64)
        return numbers[1:] - numbers[:-1]

    def packed(self, stamps: MutableSequence[int]) -> bytes | None:
        if len(stamps) > MAX_PACKED or stamps[-1] - stamps[0] >> 32 or sys.byteorder != "little":
            return None
        return self.low_words(stamps)

    def low_words(self, stamps: MutableSequence[int]) -> bytes:
        """The low 32 bits of each, in this machine's order of bytes."""
        return array("I", cast("array[int]", stamps).tobytes())[::2].tobytes()


class CudaTimestamps:
    """Events on the current CUDA stream, from a pool; their distances are read a step later, without a synchronize."""

    immediate = False

    def __init__(self) -> None:
        import torch

        self._new = lambda: torch.cuda.Event(enable_timing=True)

    def now(self) -> Timestamp:
        event = self._new()
        event.record()
        return event

    def room(self) -> MutableSequence[Timestamp]:
        return []

    def ready(self, stamp: Timestamp) -> bool:
        return bool(stamp.query())

    def wait(self, stamp: Timestamp) -> None:
        stamp.synchronize()

    def length_ns(self, end: Timestamp, start: Timestamp, /) -> int:
        milliseconds: float = start.elapsed_time(end)
        return round(milliseconds * 1e6)

    def lengths_ns(self, stamps: MutableSequence[Timestamp]) -> Array:
        return np.array([self.length_ns(end, start) for start, end in itertools.pairwise(stamps)], np.int64)

    def packed(self, stamps: MutableSequence[Timestamp]) -> bytes | None:
        return None


@dataclass(frozen=True)
class Intervals:
    """Intervals that have ended: ``owners[i]`` held the time from ``stamps[i]`` to ``stamps[i + 1]``; the last stamp is
    the
    end.
    """

    source: Timestamps
    owners: list[Any]
    stamps: MutableSequence[Timestamp]

    @property
    def end(self) -> Timestamp:
        return self.stamps[-1]

    def lengths_ns(self) -> Array:
        """The nanoseconds of each turn, once the stamps can be read."""
        return self.source.lengths_ns(self.stamps)

    def packed(self) -> bytes | None:
        """The stamps in few bytes, where they are such and few."""
        return self.source.packed(self.stamps)

    def sums_ns(self) -> dict[Any, int]:
        """Nanoseconds by owner, once the stamps can be read; for turns so few that an array of them costs more."""
        sums: dict[Any, int] = {}
        length_ns = self.source.length_ns
        for owner, (start, end) in zip(self.owners, itertools.pairwise(self.stamps), strict=True):
            sums[owner] = sums.get(owner, 0) + length_ns(end, start)
        return sums


class Timeline:
    """Takes turns.  Two plain sequences, the same ones for life, because a turn is taken twice in every module call:
    hot paths append to them what :meth:`turn` would.  Owners may be relabelled until they are taken.
    """

    def __init__(self, source: Timestamps, owner: Any) -> None:
        self.source = source
        self.owners: list[Any] = []
        self.stamps = source.room()
        self.turn(owner)

    def turn(self, owner: Any) -> None:
        """From now on the time is ``owner``'s."""
        self.stamps.append(self.source.now())
        self.owners.append(owner)

    def restart(self, owner: Any) -> None:
        """Forget all turns; the time is ``owner``'s from now on."""
        self.owners.clear()
        del self.stamps[:]
        self.turn(owner)

    def end(self) -> Intervals:
        """All turns since the start; the last one ends now.  They are the ledger's own until :meth:`restart`, which has
        to follow.
        """
        self.stamps.append(self.source.now())
        return Intervals(self.source, self.owners, self.stamps)

    def take(self) -> Intervals:
        """All turns since the start, to keep; the last one ends now."""
        stamps = self.stamps[:]
        stamps.append(self.source.now())
        return Intervals(self.source, self.owners[:], stamps)
