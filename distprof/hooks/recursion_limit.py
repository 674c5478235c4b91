"""Room for our own frames while a model is looked into: what runs near Python's recursion limit must not meet it."""

from __future__ import annotations

import contextlib
import sys

_MOST = (1 << 31) - 1


class Room:
    """From :meth:`open` to :meth:`close` the limit is so much higher as a frame more in each call of a module asks for,
    of four that torch's own takes, and what is below the last of them.  A limit that the script sets meanwhile stays.
    """

    def __init__(self) -> None:
        self._before = self._raised = 0

    def open(self) -> None:
        limit = sys.getrecursionlimit()
        if limit != self._raised:
            self._before, self._raised = limit, min(limit + limit // 4 + 200, _MOST)
            sys.setrecursionlimit(self._raised)

    def close(self) -> None:
        raised, self._raised = self._raised, 0
        if raised and sys.getrecursionlimit() == raised:
            with contextlib.suppress(RecursionError):  # so deep are we: it would be too low
                sys.setrecursionlimit(self._before)
