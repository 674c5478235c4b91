"""Computes how long the iterations of the job are: one iteration is the median over the ranks that timed it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median

import numpy as np

from distprof.merge.arrays import distinct
from distprof.merge.load.window import Window
from distprof.merge.report import LONG_STEP, Iterations
from distprof.merge.stats import middle, quantile

_LATE_SHARE = 0.95  # 1 of 20 iterations is longer


def job_iterations(windows: Mapping[int, Window]) -> Iterations | None:
    """Returns the wall times; ``windows`` are those of the ranks with timed steps, and there is None without any."""
    if not windows:
        return None
    number = np.concatenate([window.iterations for window in windows.values()])
    duration = np.concatenate([window.durations_ns for window in windows.values()])
    by_number = {one: float(middle(duration[number == one])) for one in distinct(number).tolist()}
    times = list(by_number.values())
    median_ns = float(median(times))
    return Iterations(
        steps=len(times),
        median_ns=median_ns,
        mean_ns=fmean(times),
        p95_ns=quantile(times, _LATE_SHARE),
        max_ns=float(max(times)),
        long=tuple(iteration for iteration, time in by_number.items() if time > LONG_STEP * median_ns),
    )
