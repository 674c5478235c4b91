"""Arrays that the analysis computes with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from distprof.records import Array

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def padded(values: Array, rows: int) -> IntArray:
    """Returns ``values`` with one value for each row of the tree: rows that were added later have zeros."""
    full = np.zeros(rows, object if values.dtype == object else np.int64)
    full[: min(rows, len(values))] = values[:rows]
    return full
