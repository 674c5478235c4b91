"""How many steps have an evaluation, and the mean time of an iteration with and without one.

    time of an iteration = share of steps without evaluation * their median + share of steps with one * their median

This is computed for each rank; the report has the median over ranks.  A single median over all steps would ignore
evaluations in fewer than half of the steps, and else assume one in every step.  A step has an evaluation if any rank
ran one in it, because the other ranks wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distprof.merge.load.window import Window
from distprof.merge.report import Evaluations, Spread
from distprof.merge.stats import median_of_steps, spread


def with_evaluations(windows: Mapping[int, Window]) -> tuple[Evaluations, Spread | None]:
    """Returns the evaluations, and the time of an iteration; ``windows`` are those of the ranks with timed steps."""
    taken = {rank: window.phase_ns("evaluation") for rank, window in windows.items()}
    iterations = {iteration for window in windows.values() for iteration in window.iterations}
    evaluated = {
        iteration
        for rank, window in windows.items()
        for iteration, took in zip(window.iterations, taken[rank].tolist(), strict=True)
        if took > 0
    }
    evaluations = Evaluations(
        steps=len(evaluated),
        timed_steps=len(iterations),
        time_ns=spread({rank: median_of_steps(times[times > 0]) for rank, times in taken.items() if (times > 0).any()}),
    )
    return evaluations, spread({rank: _iteration(window, evaluated) for rank, window in windows.items()})


def _iteration(window: Window, evaluated: set[int]) -> float:
    """Returns the mean over the two kinds of steps, weighted by how many there are, of their median durations."""
    has = np.array([iteration in evaluated for iteration in window.iterations])
    kinds = [kind for kind in (has, ~has) if kind.any()]
    return sum(float(kind.mean()) * median_of_steps(window.durations_ns[kind]) for kind in kinds)
