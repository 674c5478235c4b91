"""Arrays that the analysis computes with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distprof.records import Array

IntArray = npt.NDArray[np.int64]


FloatArray = npt.NDArray[np.float64]


def padded(values: Array, rows: int) -> IntArray:
    """A bulk array brought to the rows of the whole tree: rows that came later hold zeros."""
    full = np.zeros(rows, object if values.dtype == object else np.int64)
    full[: min(rows, len(values))] = values[:rows]
    return full
