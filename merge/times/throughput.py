"""How many samples and tokens the job trains in a second, and how many of its iterations evaluate.

    samples/second = mean samples of a timed step, of all replicas / mean wall iteration

The rate is that of the whole window, with its long steps: bursts, evaluations and checkpoints are in it, as they are in
the time that a user pays for.  The rate at the median iteration is without them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean

import numpy as np

from distprof.merge.load.window import Window
from distprof.merge.quantities import NS_PER_SECOND
from distprof.merge.report import Evaluations, Iterations
from distprof.merge.stats import median_of_steps, spread

_WORTH_SAYING = 0.02  # difference of two rates
_NONE = np.empty(0)


def evaluations(windows: Mapping[int, Window]) -> Evaluations:
    """Returns the evaluations; ``windows`` are those of the ranks with timed steps.

    A step has an evaluation if any rank ran one in it, because the other ranks wait for it.
    """
    taken = {rank: window.phases_ns.get("evaluation", _NONE) for rank, window in windows.items()}
    evaluating = {rank: times for rank, times in taken.items() if (times > 0).any()}
    evaluated = {
        iteration
        for rank, times in evaluating.items()
        for iteration, took in zip(windows[rank].iterations, times.tolist(), strict=True)
        if took > 0
    }
    return Evaluations(
        steps=len(evaluated),
        timed_steps=len(set().union(*{window.iterations for window in windows.values()})),
        time_ns=spread({rank: median_of_steps(times[times > 0]) for rank, times in evaluating.items()}),
    )


def samples_per_second(windows: Collection[Window], dp: int, times: Iterations | None) -> float | None:
    """Returns the rate of ``dp`` replicas of which ``windows`` are examples; None where no batch size was found.

    A step whose batch size was not found counts as the median step.
    """
    samples = [
        (sum(window.samples_by_step) + window.samples_by_step.count(0) * window.samples) / window.steps
        for window in windows
        if window.samples and window.steps
    ]
    return per_second(fmean(samples) * dp if samples else None, times)


def per_second(amount: float | None, times: Iterations | None) -> float | None:
    """Returns the rate of an amount in the mean iteration; None where either is not known."""
    return None if amount is None or times is None or not times.mean_ns else amount / (times.mean_ns / NS_PER_SECOND)


def tokens_per_iteration(windows: Collection[Window], sizes: Mapping[str, int]) -> float | None:
    """Returns the mean over the timed steps of the ids of all replicas, of which ``windows`` are examples.

    None where a step has none, and with context parallelism: whether a rank's ids are the whole sequence is not known.
    """
    timed = [window.tokens_by_step for window in windows if window.steps]
    if not timed or sizes.get("cp", 1) > 1 or not all(map(all, timed)):
        return None
    return fmean(map(fmean, timed)) * sizes["dp"]


def rates_differ(over_all: float | None, at_median: float | None) -> bool:
    """Returns whether the rate over all steps and that at the median step are both known, and differ by so much that
    a reader has to know.
    """
    return bool(over_all and at_median and abs(at_median / over_all - 1) >= _WORTH_SAYING)
