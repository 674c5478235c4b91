"""Raises Python's recursion limit while modules are watched, so that deep models do not reach it through our frames."""

from __future__ import annotations

import contextlib
import sys

_MOST = (1 << 31) - 1


class RecursionLimit:
    """Keeps the limit higher from :meth:`increase` to :meth:`restore`: by one frame for each four of torch's, for those
    of the module calls, and by 200 frames for what the innermost call runs.  A limit that the script sets meanwhile
    stays.
    """

    def __init__(self) -> None:
        self._before = self._raised = 0

    def increase(self) -> None:
        limit = sys.getrecursionlimit()
        if limit != self._raised:
            self._before, self._raised = limit, min(limit + limit // 4 + 200, _MOST)
            sys.setrecursionlimit(self._raised)

    def restore(self) -> None:
        raised, self._raised = self._raised, 0
        if raised and sys.getrecursionlimit() == raised:
            with contextlib.suppress(RecursionError):  # the stack is too deep for the lower limit
                sys.setrecursionlimit(self._before)
