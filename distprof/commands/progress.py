"""Shows the progress in one line on a terminal's stderr, after the first second."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO

from distprof.clock import Clock, SystemClock
from distprof.printable import on_one_line

_PATIENCE_NS = 1_000_000_000
_ERASE = "\r\x1b[K"


class Progress:
    """The progress line; nothing is shown unless ``stream`` is a terminal."""

    def __init__(self, stream: TextIO, clock: Clock | None = None) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._clock: Clock = clock or SystemClock()
        self._start_ns = self._clock.mono_ns()
        self._shown = False

    def say(self, what: str) -> None:
        """Shows ``what`` in place of the last text."""
        if self._terminal and self._clock.mono_ns() - self._start_ns > _PATIENCE_NS:
            self._write(f"{_ERASE}distprof: {on_one_line(what)}")
            self._shown = True

    def files(self, done: int, total: int) -> None:
        """Shows how many shards are read."""
        self.say(f"read {done} of {total} shards")

    def copies(self, done: int, total: int) -> None:
        """Shows how many files of a run are copied."""
        self.say(f"copied {done} of {total} files")

    def clear(self) -> None:
        """Clears the line."""
        if self._shown:
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal may have gone
            self._stream.write(text)
            self._stream.flush()
