"""What many measurements of one thing say, and how far to trust it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_TRIMMED = 0.25  # at either end


@dataclass(frozen=True)
class Estimate:
    """A value, and where it lies with a probability of 95 %."""

    value: float
    low: float
    high: float

    def shown(self, digits: int) -> str:
        value, low, high = (f"{number:,.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} … {high})" if self.low < self.high else value


def sure(value: float) -> Estimate:
    """Of what is not uncertain, or was measured once."""
    return Estimate(value, value, value)


def middle_half(values: Sequence[float]) -> Estimate:
    """The mean of the middle half of these.

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
    """The same of ratios, which are averaged as logarithms: what is twice as slow and what is twice as fast cancel."""
    found = middle_half([math.log(ratio) for ratio in ratios])
    return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def verdict(found: Estimate, budget: float | None, digits: int) -> str:
    """The budget, and whether it is kept, as far as its digits go, and as the measurements can tell.  Empty without."""
    if budget is None:
        return ""
    value, low, high = (round(number, digits) for number in (found.value, found.low, found.high))
    if low > budget:
        said = "**missed**"
    elif value > budget:
        said = "cannot be told by this run"
    else:
        said = "kept" if high <= budget else "kept, as far as this run can tell"
    return f"{budget:,.{digits}f}: {said}"
