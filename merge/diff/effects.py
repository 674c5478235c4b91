"""What changed in one place more than in the others, and how far places change by chance.

Differences of two runs' levels, (places, ranks), are what is compared.  What the places of a rank have in common is the
machine's and is taken off.  The rest of a place is its change, and three things say how far it goes by chance: the
steps of each rank; the spread over the ranks, each of which is a process of its own; and the changes of the
other places, most of which did not really change (an empirical null; Efron 2004).  The last one holds what no run can
show by itself: that memory lies elsewhere, or that another job disturbs one run only.

Variances of few degrees of freedom are drawn towards what is expected (moderated; Smyth 2004).  Outliers are found by
the generalised extreme Studentised deviate (Rosner 1983): the most extreme places are judged by the spread of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.noise import CONFIDENCE, student_quantile
from distprof.merge.stats import nan_mean, nan_median

#: With fewer places a change of one cannot be told from one of the machine.
LEAST_PLACES = 3
#: An expected variance counts as one that was measured with so many degrees of freedom.
_PRIOR = 4.0
#: Degrees of freedom of the error that the steps of one rank give, in both runs.
_OF_STEPS = 2.0
#: At most this share of the places can be outliers.
_MOST_OUTLIERS = 1 / 3
#: A machine that is slower as a whole does not slow down all places alike: one may change by so much more or less,
#: relative to the common change.  With half of it, 5 of 66 equal pairs named a module on a machine with 14 other jobs.
_UNALIKE = 1.0
#: The variance of a median of three or more, relative to that of a mean.
_OF_MEDIAN = pi / 2


@dataclass(frozen=True, eq=False)
class Effects:
    """Logarithms.  ``bound``: by chance a change is within +-bound, of all places together at the confidence of
    :mod:`distprof.merge.diff.noise`; NaN where that is not known.
    """

    common: float  # the change that places have in common
    change: FloatArray  # (places,) beyond that
    bound: FloatArray


def place_effects(differences: FloatArray, variances: FloatArray) -> Effects:
    """Returns the effects from (places, ranks) differences and the squares of their standard errors."""
    if not differences.size:
        return Effects(0.0, np.empty(0), np.empty(0))
    by_rank = nan_median(differences.T)
    apart = differences - by_rank
    change = nan_median(apart)
    error = np.sqrt(_squared_error(apart - change[:, None], variances))
    known = ~np.isnan(change / error)
    bound = np.full(len(change), np.nan)
    common = float(nan_median(by_rank))
    if np.count_nonzero(known) >= LEAST_PLACES:
        bound[known] = _bound(change[known] / error[known]) * error[known] + _UNALIKE * abs(common)
    return Effects(common, change, bound)


def _squared_error(deviations: FloatArray, variances: FloatArray) -> FloatArray:
    """Returns the square of the standard error of each place's change."""
    ranks = np.count_nonzero(~np.isnan(deviations), axis=1)
    within, freedom = nan_mean(variances), np.maximum(ranks - 1, 0)
    within = _moderated(within, ranks * _OF_STEPS, float(nan_median(within)))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.nansum(deviations**2, axis=1) / freedom
        excess = nan_median(np.where(freedom > 0, between / within / _middle_of_chi_square(freedom), np.nan))
        expected = within * max(1.0, _or_one(float(excess)))
        variance = np.where(freedom > 0, (_PRIOR * expected + freedom * between) / (_PRIOR + freedom), expected)
        found: FloatArray = np.maximum(variance, within) * np.where(ranks > 2, _OF_MEDIAN, 1.0) / ranks
    return found


def _moderated(variance: FloatArray, freedom: FloatArray, expected: float) -> FloatArray:
    found: FloatArray = (freedom * variance + _PRIOR * expected) / (freedom + _PRIOR)
    return found


def _middle_of_chi_square(freedom: FloatArray) -> FloatArray:
    """Returns the median of chi-square divided by its degrees of freedom (Wilson and Hilferty)."""
    found: FloatArray = (1 - 2 / (9 * np.maximum(freedom, 1))) ** 3
    return found


def _or_one(value: float) -> float:
    return value if np.isfinite(value) else 1.0


def _bound(deviates: FloatArray) -> float:
    """Returns how many standard errors a place changes by chance, from the changes of all places in standard errors."""
    ordered = np.sort(np.abs(deviates))[::-1]
    most = max(1, int(_MOST_OUTLIERS * len(ordered)))
    for outliers in range(most, 0, -1):
        bound = _bound_by(ordered[outliers:], len(ordered))
        if ordered[outliers - 1] > bound:
            return bound
    return _bound_by(ordered, len(ordered))


def _bound_by(others: FloatArray, places: int) -> float:
    """Returns the bound by the spread of ``others``, of a comparison of so many places (Bonferroni)."""
    freedom = _PRIOR + len(others)
    inflation = max(1.0, (_PRIOR + float((others**2).sum())) / freedom)
    return float(student_quantile(1 - (1 - CONFIDENCE) / 2 / places, freedom) * np.sqrt(inflation))
