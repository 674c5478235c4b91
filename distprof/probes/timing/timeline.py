"""Timelines: intervals of time, each with one owner.

Exactly one owner has the time at any moment.  ``switch_to(owner)`` ends the running interval and begins the next, so
that intervals are *self* time: nothing is counted twice, and all owners' times sum to the whole.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

from distprof.records import Array

Timestamp = Any  # an int of nanoseconds on the CPU, an event on an accelerator
Item = TypeVar("Item")


class Timestamps(Protocol):
    """Takes timestamps and reads the time between them."""

    #: Whether a timestamp can be read at once, and is a moment on the host's monotonic clock.
    immediate: bool
    #: Reads the host's monotonic clock, in ns.
    host_ns: Callable[[], int]
    now: Callable[[], Timestamp]

    def buffer(self) -> MutableSequence[Timestamp]:
        """Returns an empty sequence for timestamps."""

    def ready(self, timestamp: Timestamp) -> bool:
        """Returns whether this timestamp can be read without waiting."""

    def wait(self, timestamp: Timestamp) -> None:
        """Waits until the timestamp can be read."""

    def length_ns(self, end: Timestamp, start: Timestamp, /) -> int:
        """Returns the nanoseconds between two timestamps."""

    def moments_ns(self, timestamps: MutableSequence[Any]) -> Array:
        """Returns the timestamps of a buffer as int64: on the clock of the host if :attr:`immediate`, else after the
        first one.
        """

    def sums_ns(
        self, timestamps: MutableSequence[Any], slots: bytes, size: int, long_ns: int
    ) -> tuple[Array, list[int]]:
        """Returns the nanoseconds of the intervals between timestamps by slot, int64 of shape (size,), and the numbers
        of the intervals of ``long_ns`` or more.  ``slots`` has the slot of each interval, as int32.
        """
        moments_ns = self.moments_ns(timestamps)
        lengths_ns = moments_ns[1:] - moments_ns[:-1]
        # Sums in float64 are exact up to 2**53 ns, 104 days.
        sums = np.bincount(np.frombuffer(slots, np.int32), lengths_ns, size).astype(np.int64)
        return sums, np.flatnonzero(lengths_ns >= long_ns).tolist()


class HostTimestamps(Timestamps):
    """Reads the host's monotonic clock, which is exact for work on the CPU."""

    immediate = True
    length_ns = staticmethod(operator.sub)

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self.now = self.host_ns = mono_ns

    def buffer(self) -> MutableSequence[int]:
        # A list of ints would be spread over the memory, and a step's timestamps have left the caches at its end.
        return array("q")

    def ready(self, timestamp: int) -> bool:
        return True

    def wait(self, timestamp: int) -> None:
        pass

    def moments_ns(self, timestamps: MutableSequence[int]) -> Array:
        # A copy, because an array that numpy looks into cannot grow.
        return np.frombuffer(cast("array[int]", timestamps).tobytes(), np.int64)


class CudaTimestamps(Timestamps):
    """Records events on the current CUDA stream; their times are read a step later, without a synchronize."""

    immediate = False

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        import torch

        self.host_ns = mono_ns
        self._new = lambda: torch.cuda.Event(enable_timing=True)

    def now(self) -> Timestamp:
        event = self._new()
        event.record()
        return event

    def buffer(self) -> MutableSequence[Timestamp]:
        return []

    def ready(self, timestamp: Timestamp) -> bool:
        return bool(timestamp.query())

    def wait(self, timestamp: Timestamp) -> None:
        timestamp.synchronize()

    def length_ns(self, end: Timestamp, start: Timestamp, /) -> int:
        milliseconds: float = start.elapsed_time(end)
        return round(milliseconds * 1e6)

    def moments_ns(self, timestamps: MutableSequence[Timestamp]) -> Array:
        lengths_ns = (self.length_ns(end, start) for start, end in itertools.pairwise(timestamps))
        return np.array([*itertools.accumulate(lengths_ns, initial=0)], np.int64)


@dataclass(frozen=True)
class Intervals:
    """Ended intervals: ``owners[i]`` had the time from ``timestamps[i]`` to ``timestamps[i + 1]``; the last timestamp
    is the end.
    """

    source: Timestamps
    owners: list[Any]
    timestamps: MutableSequence[Timestamp]

    @property
    def end(self) -> Timestamp:
        return self.timestamps[-1]

    def sums_ns(self) -> dict[Any, int]:
        """Returns nanoseconds by owner, once the timestamps can be read; for few intervals, without numpy."""
        sums: dict[Any, int] = {}
        length_ns = self.source.length_ns
        for owner, (start, end) in zip(self.owners, itertools.pairwise(self.timestamps), strict=True):
            sums[owner] = sums.get(owner, 0) + length_ns(end, start)
        return sums


class Unread(Generic[Item]):
    """Keeps what has ended until its last timestamp can be read."""

    def __init__(self, source: Timestamps) -> None:
        self._source = source
        self._waiting: list[tuple[Timestamp, Item]] = []

    def add(self, last: Timestamp, item: Item) -> None:
        """Adds something that no timestamp after ``last`` belongs to."""
        self._waiting.append((last, item))

    def take(self, *, wait: bool) -> Iterator[Item]:
        """Yields what can be read now, or with ``wait`` all, in the order in which it was added, each once."""
        while self._waiting:
            last, item = self._waiting[0]
            if wait:
                self._source.wait(last)
            elif not self._source.ready(last):
                return
            del self._waiting[0]
            yield item


class Timeline:
    """Records intervals in two plain sequences, which stay the same objects: an interval begins twice in every module
    call, and hot paths append to the sequences themselves.  Owners may be renamed until the timeline is finished.
    """

    def __init__(self, source: Timestamps, owner: Any) -> None:
        self.source = source
        self.owners: list[Any] = []
        self.timestamps = source.buffer()
        self.switch_to(owner)

    def switch_to(self, owner: Any) -> None:
        """Ends the running interval and begins one of ``owner``."""
        self.timestamps.append(self.source.now())
        self.owners.append(owner)

    def restart(self, owner: Any) -> None:
        """Forgets all intervals and begins one of ``owner``."""
        self.owners.clear()
        del self.timestamps[:]
        self.switch_to(owner)

    def finish(self) -> Intervals:
        """Ends the last interval and returns all since the start, without a copy: valid until :meth:`restart`, which
        has to follow.
        """
        self.timestamps.append(self.source.now())
        return Intervals(self.source, self.owners, self.timestamps)

    def finish_copy(self) -> Intervals:
        """Returns a copy of all intervals since the start; the last one ends now."""
        timestamps = self.timestamps[:]
        timestamps.append(self.source.now())
        return Intervals(self.source, self.owners[:], timestamps)
