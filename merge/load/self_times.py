"""The self times of a rank's modules step by step, of those modules that take a good part of an iteration.

A run of 4,096 ranks with 1,000 modules and 10 steps has 80 million self times.  Only modules that take a share of the
iteration can make a rank slow, and there are at most a hundred of them in a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import IntArray

#: Self times by step are kept of a module that takes this share of the iteration in one of them.  A rank is called slow
#: in a module from three times as much on.
KEPT_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class SelfTimes:
    """Self times in ns: one line for each kept (row, direction), in the order of ``rows``, then one column a step."""

    forward_rows: IntArray  # rows of the rank's tree
    backward_rows: IntArray
    forward: npt.NDArray[np.float32]  # (rows, steps)
    backward: npt.NDArray[np.float32]


def kept_self_times(forward: IntArray, backward: IntArray, iteration_ns: float) -> SelfTimes:
    """Returns what is kept of (steps, rows) self times; ``iteration_ns`` is the median iteration of the rank."""
    least = KEPT_SHARE * iteration_ns
    forward_rows, backward_rows = (np.flatnonzero(times.max(axis=0) >= least) for times in (forward, backward))
    return SelfTimes(
        forward_rows=forward_rows,
        backward_rows=backward_rows,
        forward=forward[:, forward_rows].T.astype(np.float32),
        backward=backward[:, backward_rows].T.astype(np.float32),
    )
