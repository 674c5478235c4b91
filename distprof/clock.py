"""The time source: wall and monotonic time through one object, which tests replace."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from distprof.plain import dataclass

_TRIES = 5
_CLOSE_NS = 1_000
_NEVER = 1 << 62


@dataclass(frozen=True)
class Anchor:
    """One instant on both clocks, in ns; converts monotonic time to wall time."""

    wall_ns: int
    mono_ns: int

    def wall_of(self, mono_ns: int) -> int:
        """Returns the wall time (ns since the epoch) of a monotonic time, also after the wall clock has jumped."""
        return self.wall_ns + (mono_ns - self.mono_ns)

    def mono_of(self, wall_ns: int) -> int:
        """Returns the monotonic time of a wall time, which :meth:`wall_of` returned."""
        return self.mono_ns + (wall_ns - self.wall_ns)


class Clock(Protocol):
    """The interface of time sources."""

    def wall_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks.  Both methods are the C functions themselves: hot paths call them directly."""

    wall_ns = staticmethod(time.time_ns)
    mono_ns = staticmethod(time.perf_counter_ns)


def anchor(clock: Clock) -> Anchor:
    """Reads both clocks at (nearly) one instant: the wall clock between two readings of the monotonic one.

    Tries again, a few times, where the two are not close: a process may lose its core between them.
    """
    mono_ns, wall_ns = clock.mono_ns, clock.wall_ns
    closest = _NEVER, 0, 0
    for _ in range(_TRIES):
        before, wall, after = mono_ns(), wall_ns(), mono_ns()
        if after - before < closest[0]:
            closest = after - before, wall, before
            if closest[0] <= _CLOSE_NS:
                break
    between, wall, before = closest
    return Anchor(wall_ns=wall, mono_ns=before + between // 2)


def clock_domain() -> str:
    """Returns a name that is the same in exactly those processes that read the same clocks.

    It is the id of the boot of this machine and the time namespace of this process, where the system tells them, else
    the host's name: containers of one machine share clocks, and hosts of one name do not.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return os.uname().nodename
    try:
        return f"{boot}/{Path('/proc/self/ns/time').stat().st_ino}"
    except OSError:  # an older kernel has no such namespaces
        return boot
