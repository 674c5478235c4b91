"""The noise of step times, and bounds on the change between two runs.

Steps of a run are not independent: bursts, clocks and other jobs last several of them, so the standard error of
independent samples is too small.  The method is that of non-overlapping batch means: the steps are cut into batches of
neighbours, the figure is taken of each batch, and the batches' spread gives its error, by Student's t with as many
degrees of freedom as there are batches less one.  What lasts less than a batch is averaged inside it; what lasts longer
makes the batches differ.  Bootstraps of blocks and long-run variances need many more steps than a window has: they are
too narrow with ten.  Figures are compared as logarithms, by Welch's formula for two runs of different noise.

Steps cannot show what changes between runs only.  The commonest such cause is another job on the same processors, and
for that each step tells how long its thread waited for a processor: bounds are widened by the share of these waits.
Runs that were recorded several times show all of it: each of them is a batch then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from statistics import NormalDist

import numpy as np

from distprof.merge.arrays import FloatArray

#: Bounds hold the true change in so many cases.
CONFIDENCE = 0.99
MOST_BATCHES = 5
LEAST_BATCHES = 4
_LEAST_IN_BATCH = 2
#: A run that waited longer for processors says nothing about its times.
MOST_WAITED = 0.95

#: Returns one figure, in its own unit, of (samples, steps).
Statistic = Callable[[FloatArray], float]


@dataclass(frozen=True)
class Estimate:
    """The logarithm of a figure, its standard error, and the degrees of freedom of that."""

    log: float
    error: float
    freedom: int


@dataclass(frozen=True)
class Bounds:
    """A relative change and its bounds."""

    change: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def estimate(samples: FloatArray, statistic: Statistic, most_batches: int = MOST_BATCHES) -> Estimate | None:
    """Returns the estimate from (samples, steps); None where there are too few steps, or the figure is not above 0.

    Fewer and longer batches hold for noise that lasts longer, and give wider bounds.
    """
    steps = samples.shape[-1]
    batches = min(most_batches, steps // _LEAST_IN_BATCH)
    if batches < LEAST_BATCHES:
        return None
    figures = [statistic(part) for part in np.array_split(samples, batches, axis=-1)]
    whole = statistic(samples)
    if not whole > 0 or not all(figure > 0 for figure in figures):
        return None
    logs = np.log(figures)
    return Estimate(log(whole), float(logs.std(ddof=1)) / sqrt(batches), batches - 1)


def of_repeated(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Returns the estimate of runs that were recorded several times; None where the figure of one is not known.

    The error is that of the spread over runs, which is known from their number alone, but not below what their steps
    show: some runs are alike by chance.
    """
    known = [one for one in estimates if one is not None]
    if not known or len(known) < len(estimates):
        return None
    if len(known) == 1:
        return known[0]
    logs, count = np.array([one.log for one in known]), len(known)
    over_runs = float(logs.std(ddof=1)) / sqrt(count)
    within = sqrt(sum(one.error**2 for one in known)) / count
    return Estimate(float(logs.mean()), max(over_runs, within), count - 1)


def bounds(first: Estimate, second: Estimate, *, comparisons: int = 1, offset: float = 0.0) -> Bounds:
    """Returns the change from ``first`` to ``second``; ``offset`` is a logarithm that is taken off.

    With several ``comparisons`` the bounds of all of them hold together (Bonferroni).
    """
    change = second.log - first.log - offset
    error = sqrt(first.error**2 + second.error**2)
    factor = student_quantile(1 - (1 - CONFIDENCE) / 2 / comparisons, _freedom(first, second))
    return Bounds(exp(change) - 1, exp(change - factor * error) - 1, exp(change + factor * error) - 1)


def widened(found: Bounds, first_waited: float, second_waited: float) -> Bounds:
    """Returns the bounds for runs that waited for processors in these shares of their time.

    Without its waits a run takes between (1 - share) x its time and its time.
    """
    first, second = min(first_waited, MOST_WAITED), min(second_waited, MOST_WAITED)
    return Bounds(found.change, (1 + found.low) * (1 - second) - 1, (1 + found.high) / (1 - first) - 1)


def _freedom(first: Estimate, second: Estimate) -> float:
    """Returns the degrees of freedom of a difference, by Welch and Satterthwaite."""
    parts = [(one.error**2, one.freedom) for one in (first, second)]
    below = sum(square**2 / freedom for square, freedom in parts)
    return sum(square for square, _ in parts) ** 2 / below if below > 0 else inf


def student_quantile(share: float, freedom: float) -> float:
    """Returns Student's t quantile, by the expansion of Abramowitz and Stegun 26.7.5; within 1 % from 3 degrees on."""
    z = NormalDist().inv_cdf(share)
    if freedom == inf:
        return z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
