"""Turns of modules, added up by row."""

from __future__ import annotations

from collections.abc import Sequence

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
        before = len(self.calls)
        calls = np.bincount(entered, minlength=before) if entered else self.calls
        forward, backward = turns.sums_by_row_ns(len(calls))
        if before:
            calls[:before] += self.calls if entered else 0
            forward[:before] += self.forward_ns
            backward[:before] += self.backward_ns
        self.calls, self.forward_ns, self.backward_ns = calls, forward, backward
