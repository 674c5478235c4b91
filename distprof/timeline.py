"""Timelines: to whom the time belongs, from one turn to the next.

Exactly one owner holds the time at any moment.  ``turn(owner)`` ends the owner before and begins the next, so that what
is recorded is *self* time, nothing is counted twice, and all owners together fill the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

Stamp = Any  # an int of nanoseconds on the CPU, an event on an accelerator


class Stamps(Protocol):
    """A source of stamps and the way to read their distance."""

    def now(self) -> Stamp: ...

    def ready(self, stamp: Stamp) -> bool:
        """Whether a distance to this stamp can be read without waiting."""

    def wait(self, stamp: Stamp) -> None:
        """Wait until it can be read."""

    def between_ns(self, earlier: Stamp, later: Stamp) -> int: ...


class HostStamps:
    """The host's monotonic clock: the truth on CPU."""

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self.now = mono_ns

    def ready(self, stamp: int) -> bool:
        return True

    def wait(self, stamp: int) -> None:
        pass

    def between_ns(self, earlier: int, later: int) -> int:
        return later - earlier


class EventStamps:
    """Events on the current CUDA stream, from a pool; their distances are read a step later, without a synchronize."""

    def __init__(self) -> None:
        import torch

        self._new = lambda: torch.cuda.Event(enable_timing=True)

    def now(self) -> Stamp:
        event = self._new()
        event.record()
        return event

    def ready(self, stamp: Stamp) -> bool:
        return bool(stamp.query())

    def wait(self, stamp: Stamp) -> None:
        stamp.synchronize()

    def between_ns(self, earlier: Stamp, later: Stamp) -> int:
        milliseconds: float = earlier.elapsed_time(later)
        return round(milliseconds * 1e6)


class Ledger:
    """Turns as they were taken: owner ``owners[i]`` holds the time from ``stamps[i]`` to ``stamps[i + 1]``.

    Two plain lists, because a turn is taken twice in every module call: :meth:`turn` is what hot paths inline.
    Owners may be relabelled until the ledger is closed and read.
    """

    def __init__(self, stamps: Stamps, owner: Any) -> None:
        self.source = stamps
        self.owners: list[Any] = [owner]
        self.stamps: list[Stamp] = [stamps.now()]

    def turn(self, owner: Any) -> None:
        self.stamps.append(self.source.now())
        self.owners.append(owner)

    def close(self) -> None:
        """The last owner's time ends now."""
        self.turn(None)

    @property
    def end(self) -> Stamp:
        return self.stamps[-1]

    def lengths_ns(self) -> list[int]:
        """The length of each turn but the last, once the stamps can be read."""
        between = self.source.between_ns
        return [between(earlier, later) for earlier, later in itertools.pairwise(self.stamps)]

    def sums_ns(self) -> dict[Any, int]:
        """Nanoseconds by owner."""
        sums: dict[Any, int] = {}
        for owner, length in zip(self.owners, self.lengths_ns(), strict=False):
            sums[owner] = sums.get(owner, 0) + length
        return sums
