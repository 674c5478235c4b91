"""How often there was an evaluation, and how long an iteration is with its share of them: a median alone would pass
over one in one of ten steps, and take one in six of them for all.

    time of an iteration = share of steps without evaluation * their median + share of steps with one * their median

of each rank, then the median over the ranks.  A step has an evaluation if any rank ran one in it: the others wait.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from distprof.merge.load.window import Window
from distprof.merge.report import Evaluations, Spread
from distprof.merge.stats import of_steps, spread


def with_evaluations(windows: Mapping[int, Window]) -> tuple[Evaluations, Spread | None]:
    """What there was, and the time of an iteration.  ``windows``: of the ranks with timed steps."""
    taken = {rank: _evaluating(window) for rank, window in windows.items()}
    iterations = {iteration for window in windows.values() for iteration in window.iterations}
    evaluated = {
        iteration
        for rank, window in windows.items()
        for iteration, took in zip(window.iterations, taken[rank].tolist(), strict=True)
        if took > 0
    }
    found = Evaluations(
        steps=len(evaluated),
        timed_steps=len(iterations),
        time_ns=spread({rank: of_steps(times[times > 0]) for rank, times in taken.items() if (times > 0).any()}),
    )
    return found, spread({rank: _iteration(window, evaluated) for rank, window in windows.items()})


def _evaluating(window: Window) -> npt.NDArray[np.float64]:
    """By step; 0 where none was seen."""
    return np.nan_to_num(window.phases_ns.get("evaluation", np.zeros(window.steps)))


def _iteration(window: Window, evaluated: set[int]) -> float:
    has = np.array([iteration in evaluated for iteration in window.iterations])
    kinds = [kind for kind in (has, ~has) if kind.any()]
    return sum(float(kind.mean()) * of_steps(window.durations_ns[kind]) for kind in kinds)
