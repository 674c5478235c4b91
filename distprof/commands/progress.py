"""One line on a terminal's stderr that says what is going on, once it takes longer than a second."""

from __future__ import annotations

from typing import TextIO

from distprof.clock import Clock, SystemClock

_PATIENCE_NS = 1_000_000_000
_ERASE = "\r\x1b[K"


class Progress:
    """Silent unless ``stream`` is a terminal."""

    def __init__(self, stream: TextIO, clock: Clock | None = None) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._clock: Clock = clock or SystemClock()
        self._start_ns = self._clock.mono_ns()
        self._shown = False

    def say(self, what: str) -> None:
        """Show ``what`` in place of what was said before."""
        if self._terminal and self._clock.mono_ns() - self._start_ns > _PATIENCE_NS:
            self._stream.write(f"{_ERASE}distprof: {what}")
            self._stream.flush()
            self._shown = True

    def files(self, done: int, total: int) -> None:
        """Show how many shards are read."""
        self.say(f"read {done} of {total} shards")

    def clear(self) -> None:
        """Leave an empty line behind."""
        if self._shown:
            self._stream.write(_ERASE)
            self._stream.flush()
