"""Turns of modules, added up by row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from distprof.records import Array
from distprof.timeline import Turns


class ModuleSums:
    """Calls and self times of one iteration's modules, by row; what is added up need not be kept turn by turn."""

    def __init__(self) -> None:
        self.calls: Array = np.zeros(0, np.int64)
        self.forward_ns: Array = np.zeros(0, np.int64)
        self.backward_ns: Array = np.zeros(0, np.int64)

    def add(self, turns: Turns, entered: Sequence[int]) -> None:
        """More turns, whose owners are rows (forward), ``~row`` (backward) or none, and the rows that were called."""
        calls = _calls(tuple(entered))
        rows = max(len(calls), len(self.calls))
        forward, backward = turns.sums_by_row_ns(rows)
        self.calls = _sum(calls, self.calls)
        self.forward_ns, self.backward_ns = _sum(forward, self.forward_ns), _sum(backward, self.backward_ns)


@lru_cache(maxsize=2)
def _calls(entered: tuple[int, ...]) -> Array:
    """Calls by row.  A job calls the same modules in the same order, over and over: then they are not counted anew."""
    calls: Array = np.bincount(np.array(entered, np.int64))
    calls.setflags(write=False)
    return calls


def _sum(longer: Array, shorter: Array) -> Array:
    """Of two arrays by row, of which either may be the longer one."""
    if not len(shorter):
        return longer
    if len(shorter) > len(longer):
        longer, shorter = shorter, longer
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
