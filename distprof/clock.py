"""The injectable time source: wall and monotonic time, both through one object."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

_TRIES = 5


@dataclass(frozen=True)
class Anchor:
    """One instant on both clocks, in ns; places monotonic stamps on the wall clock."""

    wall_ns: int
    mono_ns: int

    def wall_of(self, mono_ns: int) -> int:
        """Wall time (ns since the epoch) of a monotonic stamp, however the wall clock jumps afterwards."""
        return self.wall_ns + (mono_ns - self.mono_ns)


class Clock(Protocol):
    """What the rest of distprof may ask about time."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks.  Both methods are the C functions themselves: hot paths bind and call them bare."""

    wall_ns = staticmethod(time.time_ns)
    mono_ns = staticmethod(time.perf_counter_ns)


class FakeClock:
    """A clock that tests move by hand."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000, mono_ns: int = 0) -> None:
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def advance_ms(self, milliseconds: float) -> None:
        """Let both clocks run on."""
        self._wall_ns += round(milliseconds * 1e6)
        self._mono_ns += round(milliseconds * 1e6)

    def jump_wall_ms(self, milliseconds: float) -> None:
        """Set the wall clock, as an operator or NTP would: the monotonic clock does not notice."""
        self._wall_ns += round(milliseconds * 1e6)


def anchor(clock: Clock) -> Anchor:
    """Both clocks read at (nearly) one instant: the wall clock between two looks at the other, the closest of a few.

    A process that loses its core between the looks would otherwise be off by all that time.
    """
    return min((_bracket(clock) for _ in range(_TRIES)), key=lambda found: found[0])[1]


def _bracket(clock: Clock) -> tuple[int, Anchor]:
    """(ns between the looks, anchor in their middle)."""
    before, wall, after = clock.mono_ns(), clock.wall_ns(), clock.mono_ns()
    return after - before, Anchor(wall_ns=wall, mono_ns=(before + after) // 2)
