"""The output of the soak: its progress and its results."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

_ERASE = "\r\x1b[K"
_GREEN, _RED = "32", "1;31"


class Progress:
    """Shows the progress: on a terminal in one line, else (in a log) in a line every 30 seconds."""

    def __init__(self, stream: TextIO, log_every_s: float = 30) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every_s = 0.1 if self._terminal else log_every_s
        self._last = time.monotonic()

    def say(self, what: str) -> None:
        now = time.monotonic()
        if now - self._last > self._every_s:
            self._last = now
            self._stream.write(f"{_ERASE}soak: {what}" if self._terminal else f"soak: {what}\n")
            self._stream.flush()

    def clear(self) -> None:
        if self._terminal:
            self._stream.write(_ERASE)
            self._stream.flush()


def table(tally: Counter[tuple[str, str]], verdicts: Sequence[str]) -> str:
    """Formats the counts of (damage, verdict): a row for each damage, a column for each verdict."""
    widths = [max(14, len(verdict) + 2) for verdict in verdicts]
    first = max([22, *(len(abuse) + 2 for abuse, _ in tally)])
    rows = [f"{'':{first}}" + "".join(f"{v:>{width}}" for v, width in zip(verdicts, widths, strict=True))]
    for abuse in sorted({abuse for abuse, _ in tally}):
        cells = (f"{tally[abuse, v]:{width},}" for v, width in zip(verdicts, widths, strict=True))
        rows.append(f"{abuse:{first}}" + "".join(cells))
    return "\n".join(rows)


def last_word(lost: bool, stream: TextIO) -> str:
    """Returns the last line, in colour on a terminal unless NO_COLOR is set."""
    text = "something was LOST: see above" if lost else "nothing was lost"
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_RED if lost else _GREEN}m{text}\x1b[0m"
