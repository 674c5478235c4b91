"""Timelines: to whom the time belongs, from one turn to the next.

Exactly one owner holds the time at any moment.  ``turn(owner)`` ends the owner before and begins the next, so that what
is recorded is *self* time, nothing is counted twice, and all owners together fill the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distprof.records import Array

Stamp = Any  # an int of nanoseconds on the CPU, an event on an accelerator


class Stamps(Protocol):
    """A source of stamps and the way to read their distance."""

    #: Whether a stamp can be read as soon as it is taken.
    immediate: bool

    def now(self) -> Stamp: ...

    def ready(self, stamp: Stamp) -> bool:
        """Whether a distance to this stamp can be read without waiting."""

    def wait(self, stamp: Stamp) -> None:
        """Wait until it can be read."""

    def lengths_ns(self, stamps: list[Any]) -> Array:
        """The distances from each stamp to the next."""


class HostStamps:
    """The host's monotonic clock: the truth on CPU."""

    immediate = True

    def __init__(self, mono_ns: Callable[[], int]) -> None:
        self.now = mono_ns

    def ready(self, stamp: int) -> bool:
        return True

    def wait(self, stamp: int) -> None:
        pass

    def lengths_ns(self, stamps: list[int]) -> Array:
        numbers: Array = np.array(stamps, np.int64)
        return numbers[1:] - numbers[:-1]


class EventStamps:
    """Events on the current CUDA stream, from a pool; their distances are read a step later, without a synchronize."""

    immediate = False

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

    def lengths_ns(self, stamps: list[Stamp]) -> Array:
        milliseconds = [earlier.elapsed_time(later) for earlier, later in itertools.pairwise(stamps)]
        lengths: Array = np.rint(np.array(milliseconds, np.float64) * 1e6).astype(np.int64)
        return lengths


@dataclass(frozen=True)
class Turns:
    """Turns that were taken: ``owners[i]`` held the time from ``stamps[i]`` to ``stamps[i + 1]``; the last stamp is the
    end.
    """

    source: Stamps
    owners: list[Any]
    stamps: list[Stamp]

    @property
    def end(self) -> Stamp:
        return self.stamps[-1]

    def sums_ns(self) -> dict[Any, int]:
        """Nanoseconds by owner, once the stamps can be read."""
        sums: dict[Any, int] = {}
        for owner, length in zip(self.owners, self.source.lengths_ns(self.stamps).tolist(), strict=True):
            sums[owner] = sums.get(owner, 0) + length
        return sums

    def sums_by_row_ns(self, rows: int) -> tuple[Array, Array]:
        """For owners that are numbers: nanoseconds of owners 0 to ``rows`` - 1, and those of ~0 to ~(``rows`` - 1)."""
        # Owners from ~rows to rows, where those at both ends stand for all beyond, moved to begin at 0.
        places = np.minimum(np.maximum(np.array(self.owners, np.int64), ~rows), rows) - ~rows
        # Sums in float64 are exact up to 2**53 ns, 104 days.
        sums = np.bincount(places, self.source.lengths_ns(self.stamps), 2 * rows + 2).astype(np.int64)
        return sums[rows + 1 : -1], sums[rows:0:-1]


class Ledger:
    """Takes turns.  Two plain lists, the same ones for life, because a turn is taken twice in every module call: hot
    paths append to them what :meth:`turn` would.  Owners may be relabelled until they are taken.
    """

    def __init__(self, source: Stamps, owner: Any) -> None:
        self.source = source
        self.owners: list[Any] = []
        self.stamps: list[Stamp] = []
        self.turn(owner)

    def turn(self, owner: Any) -> None:
        """From now on the time is ``owner``'s."""
        self.stamps.append(self.source.now())
        self.owners.append(owner)

    def restart(self, owner: Any) -> None:
        """Forget all turns; the time is ``owner``'s from now on."""
        self.owners.clear()
        self.stamps.clear()
        self.turn(owner)

    def take(self) -> Turns:
        """All turns since the start; the last one ends now."""
        return Turns(self.source, self.owners[:], [*self.stamps, self.source.now()])
