"""Estimates from repeated measurements, with their confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_TRIMMED = 0.25  # at either end
CANNOT_TELL = "cannot be told by this run"


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def shown(self, digits: int) -> str:
        value, low, high = (f"{number:,.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} … {high})" if low != high else value


def sure(value: float) -> Estimate:
    """Returns an estimate of a value that is exact, or was measured once."""
    return Estimate(value, value, value)


def ratio(one: Estimate, other: Estimate) -> Estimate:
    """Returns one by the other, both positive and measured apart from each other."""
    lower = math.hypot(math.log(one.value / one.low), math.log(other.high / other.value))
    higher = math.hypot(math.log(one.high / one.value), math.log(other.value / other.low))
    value = one.value / other.value
    return Estimate(value, value / math.exp(lower), value * math.exp(higher))


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
    """Returns the budget, and whether it is kept: the whole interval decides, in the digits that are shown."""
    if budget is None:
        return ""
    low, high = round(found.low, digits), round(found.high, digits)
    said = "**missed**" if low > budget else "kept" if high <= budget else CANNOT_TELL
    return f"{budget:,.{digits}f}: {said}"


def verdicts(*said: str) -> str:
    """Returns several verdicts of one row."""
    return "; ".join(filter(None, said))
