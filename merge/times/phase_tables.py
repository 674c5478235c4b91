"""The phases of the timed steps of all ranks, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.load.window import Window
from distprof.merge.stats import nan_median
from distprof.plain import dataclass
from distprof.records import PHASES


@dataclass(frozen=True, eq=False)
class PhaseTables:
    """The times of phases in ns, by phase, of those that any of the ``ranks`` saw: (ranks, steps).

    NaN where a rank did not see a phase, and beyond the last step of a rank.
    """

    ranks: tuple[int, ...]
    phases: dict[str, FloatArray]
    steps: IntArray  # by rank: how many it has

    @cached_property
    def medians(self) -> dict[str, FloatArray]:
        """Returns by phase the median over the steps of each rank in which it was seen; NaN where there is none."""
        return {phase: nan_median(times) for phase, times in self.phases.items()}

    def sums(self, phases: Sequence[str]) -> FloatArray:
        """Returns the sums of some phases, (ranks, steps), of which those that were not seen count as 0; NaN for a rank
        that saw none of them, and beyond its last step.
        """
        seen = [self.phases[phase] for phase in phases if phase in self.phases]
        shape = len(self.ranks), int(self.steps.max(initial=0))
        if not seen:
            return np.full(shape, np.nan)
        total: FloatArray = np.nansum(seen, axis=0)
        none = np.all([np.isnan(times).all(axis=1) for times in seen], axis=0)
        total[none] = np.nan
        total[np.arange(shape[1]) >= self.steps[:, None]] = np.nan
        return total


@computed_once
def phase_tables(analysis: Analysis) -> PhaseTables:
    """Returns the phases of the ranks that timed a step."""
    windows = list(analysis.timed_windows.values())
    steps = np.array([window.steps for window in windows], np.int64)
    seen = [phase for phase in PHASES if any(phase in window.phases_ns for window in windows)]
    return PhaseTables(tuple(analysis.timed_windows), {phase: _table(phase, windows, steps) for phase in seen}, steps)


def _table(phase: str, windows: Sequence[Window], steps: IntArray) -> FloatArray:
    table = np.full((len(windows), int(steps.max(initial=0))), np.nan)
    for own, window in zip(table, windows, strict=True):
        if phase in window.phases_ns:
            own[: window.steps] = window.phases_ns[phase]
    return table
