"""The excess of every rank over the others of its cohort, in all places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.skew.excess import excess_over_others, standard_error
from distprof.merge.skew.step_times import StepTimes, cohort_ranks, step_times
from distprof.merge.skew.thresholds import MIN_STEPS
from distprof.merge.stats import nan_median


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
