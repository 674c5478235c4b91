"""Estimates from repeated measurements, with their confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_TRIMMED = 0.25  # at either end


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def shown(self, digits: int) -> str:
        value, low, high = (f"{number:,.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} … {high})" if self.low < self.high else value


def sure(value: float) -> Estimate:
    """Returns an estimate of a value that is exact, or was measured once."""
    return Estimate(value, value, value)


def middle_half(values: Sequence[float]) -> Estimate:
    """Returns the mean of the middle half of the values.

    The interval is that of a trimmed mean, from the winsorized deviation of all (Tukey and McLaughlin 1963).
    """
    ordered = sorted(values)
    count, cut = len(ordered), int(_TRIMMED * len(ordered))
    middle = ordered[cut : count - cut]
    mean = statistics.fmean(middle)
    winsorized = [middle[0]] * cut + middle + [middle[-1]] * cut
    error = statistics.stdev(winsorized) / (len(middle) / count * math.sqrt(count)) if count > 1 else 0.0
    return Estimate(mean, mean - 2 * error, mean + 2 * error)


def middle_ratio(ratios: Sequence[float]) -> Estimate:
    """Returns the same for ratios, averaged as logarithms: a ratio of 2 and one of 1/2 cancel."""
    found = middle_half([math.log(ratio) for ratio in ratios])
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def verdict(found: Estimate, budget: float | None, digits: int) -> str:
    """Returns the budget, and whether the value keeps it, as far as its digits and interval tell."""
    if budget is None:
        return ""
    value, low, high = (round(number, digits) for number in (found.value, found.low, found.high))
    if low > budget:
        said = "**missed**"
    elif value > budget:
        said = "this run cannot tell"
    else:
        said = "kept" if high <= budget else "kept, as far as this run can tell"
    return f"{budget:,.{digits}f}: {said}"
