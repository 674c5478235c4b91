"""Medians and spreads over ranks, where some ranks have no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import FloatArray, IntArray, ShortFloatArray
from distprof.merge.report import Spread

#: Values of which medians are computed at once: all of a large run, ordered, would take as much memory as these.
_AT_ONCE = 1 << 18


def spread(values: Mapping[int, float]) -> Spread | None:
    """Returns the spread of ``values`` by rank; None where there are none.  The lowest rank of equal maxima counts."""
    if not values:
        return None
    ranks, numbers = np.array(list(values)), np.array(list(values.values()), np.float64)
    largest = numbers.max()
    return Spread(
        min=float(numbers.min()),
        median=float(middle(numbers)),
        max=float(largest),
        mean=float(numbers.mean()),
        max_rank=int(ranks[numbers == largest].min()),
    )


def middle(values: Sequence[float] | npt.NDArray[Any], axis: int = -1) -> Any:
    """Returns the median over an axis, of at least one value; NaN where one is NaN.

    numpy's own function imports numpy.ma, which takes a thirtieth of all imports of a merge.
    """
    ordered = np.sort(np.moveaxis(np.asarray(values, np.float64), axis, -1), axis=-1)  # NaN goes last
    size = ordered.shape[-1]
    median = (ordered[..., (size - 1) // 2] + ordered[..., size // 2]) / 2
    return np.where(np.isnan(ordered[..., -1]), np.nan, median)


def quantile(values: Sequence[float] | npt.NDArray[Any], share: float) -> float:
    """Returns the value below which ``share`` of at least one value lies, as numpy's own function does between two
    values, which imports numpy.ma.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    place = share * (len(ordered) - 1)
    below = int(place)
    part, low, high = place - below, float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def nan_median(table: FloatArray | ShortFloatArray) -> FloatArray:
    """Returns the median over the last axis of the values that are not NaN; NaN where there is none."""
    if table.ndim > 1 and len(table) > 1 and table.size > _AT_ONCE:
        rows = max(1, _AT_ONCE * len(table) // table.size)
        return np.concatenate([nan_median(table[first : first + rows]) for first in range(0, len(table), rows)])
    ordered: npt.NDArray[np.floating[Any]] = np.sort(table, axis=-1)  # NaN goes last
    known = np.count_nonzero(~np.isnan(table), axis=-1)
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    high = np.minimum(high, table.shape[-1] - 1)
    middle = (_pick(ordered, low) + _pick(ordered, high)) / 2
    return np.where(known > 0, middle, np.nan)


def nan_mean(table: FloatArray) -> FloatArray:
    """Returns the mean over the last axis of the values that are not NaN; NaN where there is none."""
    known = np.count_nonzero(~np.isnan(table), axis=-1)
    return np.where(known > 0, np.nansum(table, axis=-1) / np.maximum(known, 1), np.nan)


def to_number(value: float) -> float | None:
    """Returns ``value``, or None for NaN, which stands for what was not measured."""
    return None if isnan(value) else float(value)


def _pick(ordered: npt.NDArray[np.floating[Any]], place: IntArray) -> FloatArray:
    picked: FloatArray = np.take_along_axis(ordered, place[..., None], axis=-1)[..., 0].astype(np.float64)
    return picked


def median_of_steps(values: FloatArray | IntArray) -> float:
    """Returns the median of ``values``, one for each step; NaN is left out, and at least one value is not NaN."""
    return float(median(values[~np.isnan(values)].tolist()))


def median_over_steps(table: IntArray) -> FloatArray:
    """Returns the median over the first axis, that of the steps; there is at least one step."""
    if (table[0] == table[-1]).all() and (table == table[0]).all():  # as the calls of most models are
        alike: FloatArray = table[0].astype(np.float64)
        return alike
    ordered = np.sort(table, axis=0)
    low, high = ordered[(len(table) - 1) // 2], ordered[len(table) // 2]
    middle: FloatArray = (low.astype(np.float64) + high) / 2
    return middle
