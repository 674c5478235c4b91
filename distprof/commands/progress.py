"""One line on a terminal's stderr that says what is going on, once it takes longer than a second."""

from __future__ import annotations

import time
from typing import TextIO

_PATIENCE_S = 1.0
_ERASE = "\r\x1b[K"


class Progress:
    """Silent unless ``stream`` is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._start = time.monotonic()
        self._shown = False

    def say(self, what: str) -> None:
        """Show ``what`` in place of what was said before."""
        if self._terminal and time.monotonic() - self._start > _PATIENCE_S:
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
