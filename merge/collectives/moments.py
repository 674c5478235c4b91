"""Brings the moments of a rank on the clock of the job, all at once."""

from __future__ import annotations

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.clock.offsets import RankClock


def on_job_clock(clock: RankClock, moments_ns: IntArray) -> IntArray:
    """Returns times of the rank's monotonic clock as times of the job's: linear between the first and the last."""
    if not len(moments_ns):
        return moments_ns
    first, last = int(moments_ns.min()), int(moments_ns.max())
    start, end = clock.moment(first) - first, clock.moment(last) - last
    change = np.rint((moments_ns - first) * ((end - start) / max(last - first, 1))).astype(np.int64)
    placed: IntArray = moments_ns + start + change
    return placed
