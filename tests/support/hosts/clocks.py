"""Clocks that are wrong in a known way: shifted, and too fast or too slow."""

from __future__ import annotations

from time import perf_counter_ns, time_ns


class SkewedClock:
    """The machine's clocks, ``shift_ns`` ahead at ``origin_ns`` of its monotonic clock, and too fast by ``drift``."""

    def __init__(self, shift_ns: int = 0, drift: float = 0.0, origin_ns: int = 0) -> None:
        self.shift_ns, self.drift = shift_ns, drift
        self.origin_ns = origin_ns or perf_counter_ns()

    def of(self, true_ns: int) -> int:
        """What the clock shows at a time of the machine's monotonic clock."""
        return true_ns + self.shift_ns + round(self.drift * (true_ns - self.origin_ns))

    def truth(self, shown_ns: int) -> int:
        """The time of the machine's monotonic clock at which this one shows ``shown_ns``."""
        return self.origin_ns + round((shown_ns - self.shift_ns - self.origin_ns) / (1 + self.drift))

    def mono_ns(self) -> int:
        return self.of(perf_counter_ns())

    def wall_ns(self) -> int:
        return time_ns() + self.of(true := perf_counter_ns()) - true
