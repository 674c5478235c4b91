"""How far each rank lies above the other ranks of its cohort, step by step.

    times (ranks, steps) -> minus the median of the others, in the same step -> median over steps, one a rank

The median leaves the rank itself out: of three ranks, it is between the other two.
"""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.skew.step_times import StepTimes, cohort_ranks, step_times
from distprof.merge.skew.thresholds import MIN_STEPS
from distprof.merge.stats import nan_median
from distprof.plain import dataclass

#: Standard deviation over median absolute deviation, of a normal distribution.
SIGMA_OF_MAD = 1.4826
#: Standard error of a median over that of a mean, of a normal distribution: the square root of pi / 2.
ERROR_OF_MEDIAN = 1.2533
#: Standard errors are at least so many ns, for clocks and switches of threads, however alike a few steps are.
LEAST_ERROR_NS = 50_000.0


def excess_over_others(times: FloatArray) -> FloatArray:
    """Returns (ranks, ...) times minus the median of the other ranks; NaN without a time, or without another rank."""
    ordered = np.sort(times, axis=0)  # NaN goes last
    known = np.count_nonzero(~np.isnan(times), axis=0)
    below, at, above = (_pick(ordered, known // 2 + offset) for offset in (-1, 0, 1))
    # Of an even number the others are odd, and one of the two middle ones is their median.
    others = np.where(times <= below, at, below)
    odd = known % 2 == 1
    if odd.any():
        of_odd = np.where(times < at, (at + above) / 2, np.where(times > at, (below + at) / 2, (below + above) / 2))
        others = np.where(odd, of_odd, others)
    excess: FloatArray = times - others
    excess[..., known < 2] = np.nan
    return excess


def _pick(ordered: FloatArray, index: IntArray) -> FloatArray:
    picked: FloatArray = np.take_along_axis(ordered, np.clip(index, 0, len(ordered) - 1)[None], axis=0)[0]
    return picked


def standard_error(excess: FloatArray) -> FloatArray:
    """Returns the standard error of a rank's median excess, in ns: (..., ranks, steps) to (...).

    It follows from how much the ranks' excess varies over the steps, about the median of each rank.
    """
    off = np.abs(excess - nan_median(excess)[..., None])
    deviation = SIGMA_OF_MAD * np.nan_to_num(nan_median(off.reshape(*off.shape[:-2], -1)))
    error: FloatArray = np.maximum(ERROR_OF_MEDIAN * deviation / np.sqrt(max(excess.shape[-1], 1)), LEAST_ERROR_NS)
    return error


@dataclass(frozen=True, eq=False)
class CohortExcess:
    """The excess of a cohort's ranks over the others: by step (places, ranks, steps), and the median over steps."""

    times: StepTimes
    by_step: FloatArray
    median: FloatArray  # (places, ranks)
    error: FloatArray  # (places): the standard error of a rank's median

    @property
    def size(self) -> int:
        return len(self.times.ranks)


def cohort_excess(times: StepTimes) -> CohortExcess:
    """Returns the excess of each rank; NaN for a rank with too few steps, and in a place that it has not."""
    by_step = np.moveaxis(excess_over_others(np.moveaxis(times.times, 1, 0)), 0, 1)
    few = np.count_nonzero(~np.isnan(by_step), axis=2) < MIN_STEPS
    median = np.where(few, np.nan, nan_median(by_step))
    return CohortExcess(times, by_step, median, standard_error(by_step))


@computed_once
def cohort_excesses(analysis: Analysis) -> tuple[CohortExcess, ...]:
    """Returns the excess of the ranks that have timed steps, one item a cohort."""
    return tuple(cohort_excess(step_times(analysis, ranks)) for ranks in cohort_ranks(analysis))
