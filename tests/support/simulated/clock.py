"""A clock whose time a test sets."""

from __future__ import annotations


class FakeClock:
    """The wall clock and the monotonic clock of one machine; a :class:`distprof.clock.Clock`."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000, mono_ns: int = 0) -> None:
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_ns(self) -> int:
        return self._mono_ns

    def advance_ms(self, milliseconds: float) -> None:
        """Advances both clocks."""
        self._wall_ns += round(milliseconds * 1e6)
        self._mono_ns += round(milliseconds * 1e6)

    def jump_wall_ms(self, milliseconds: float) -> None:
        """Changes the wall clock only, as an operator or NTP does."""
        self._wall_ns += round(milliseconds * 1e6)
