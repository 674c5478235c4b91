"""Medians over the timed steps of one rank: of few values, for every rank, where numpy's own take longest to begin."""

from __future__ import annotations

from statistics import median

import numpy as np
import numpy.typing as npt


def of_steps(values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> float:
    """One value a step, NaN in those that have none; one of them has."""
    return float(median(values[~np.isnan(values)].tolist()))


def over_steps(table: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(steps, ...) to (...); there is a step."""
    ordered = np.sort(table, axis=0)
    low, high = ordered[(len(table) - 1) // 2], ordered[len(table) // 2]
    middle: npt.NDArray[np.float64] = (low.astype(np.float64) + high) / 2
    return middle
