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

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import pi

import numpy as np

from distprof.merge.arrays import BoolArray, FloatArray, IntArray
from distprof.merge.diff.noise import CONFIDENCE, student_quantile
from distprof.merge.stats import nan_mean, nan_median

#: With fewer places a change of one cannot be told from one of the machine.
LEAST_PLACES = 3
#: An expected variance counts as one that was measured with so many degrees of freedom.
_PRIOR = 4.0
#: The same where one rank, or all together, are compared: its steps do not show how far processes differ.
_PRIOR_OF_ONE = 0.0
#: Degrees of freedom of the error that the steps of one rank give, in both runs.
_OF_STEPS = 2.0
#: At most this share of the places can be outliers.
_MOST_OUTLIERS = 1 / 3
#: A machine that is slower as a whole does not slow down all kinds of places alike: one may change by so much more or
#: less, relative to the common change.  With half of it, 5 of 66 equal pairs named a module on a very busy machine.
_UNALIKE = 1.0
#: The same of places of one kind.
_UNALIKE_IN_KIND = 0.1
#: The standard error of a place that all ranks of a run share, and that neither steps nor ranks show: where its memory
#: lies, and what the processor did right before.  The first place after a wait was 4 % faster in one of two equal runs.
_OF_RUN = 0.008
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


def place_effects(
    differences: FloatArray, variances: FloatArray, kinds: Sequence[Hashable], runs: IntArray | None = None
) -> Effects:
    """Returns the effects from (places, ranks) differences and the squares of their standard errors.

    ``runs`` has the number of the pair of runs of each rank, where several pairs are compared.

    Places of one kind, as the forwards of all modules of one class, are compared with each other: a busy machine slows
    them down alike.  A kind as a whole, and a place that is alone in its kind, are compared with other kinds.
    """
    if not differences.size:
        return Effects(0.0, np.empty(0), np.empty(0))
    by_rank = nan_median(differences.T)
    apart, variances = _over_ranks(differences - by_rank, variances, runs)
    if _number_of_runs(runs) > 1:
        found, of_median = nan_mean(apart), 1.0
    else:
        found, of_median = nan_median(apart), _OF_MEDIAN
    squared = _squared_error(apart - found[:, None], variances, of_median)
    error = np.sqrt(squared + _OF_RUN**2 / _number_of_runs(runs))
    common = float(nan_median(by_rank))
    groups = _groups(kinds, ~np.isnan(found / error))
    centre = np.array([_middle(found[group], error[group]) for group in groups])
    centre_error = np.array([float(np.sqrt(np.mean(error[group] ** 2) * _ratio(len(group)))) for group in groups])
    trust = _PRIOR if apart.shape[1] > 1 else _PRIOR_OF_ONE
    centre_bound = _bounds(centre, centre_error, trust) + _UNALIKE * abs(common)
    change, bound = found.copy(), np.full(len(found), np.nan)
    together = [group for group in groups if len(group) >= LEAST_PLACES]
    every = np.concatenate([np.empty(0, np.int64), *together])
    within = np.concatenate([np.empty(0), *(found[group] - _middle(found[group], error[group]) for group in together)])
    bound[every] = _bounds(within, error[every], trust) + _UNALIKE_IN_KIND * abs(common)
    for group, middle, of_kind in zip(groups, centre, centre_bound, strict=True):
        if len(group) < LEAST_PLACES:
            bound[group] = of_kind
        elif abs(middle) > of_kind:  # the whole kind changed
            bound[group] += of_kind
        else:
            change[group] -= middle
    return Effects(common, change, bound)


def _groups(kinds: Sequence[Hashable], known: BoolArray) -> list[IntArray]:
    """Returns the known places of each kind; of kinds that have few, each place alone."""
    by_kind: dict[Hashable, list[int]] = {}
    for place in np.flatnonzero(known).tolist():
        by_kind.setdefault(kinds[place], []).append(place)
    found = []
    for places in by_kind.values():
        found += [places] if len(places) >= LEAST_PLACES else [[place] for place in places]
    return [np.array(places, np.int64) for places in found]


def _middle(changes: FloatArray, errors: FloatArray) -> float:
    """Returns the median, in which certain changes have more weight."""
    order = np.argsort(changes)
    weight = np.cumsum(1 / errors[order] ** 2)
    reached: float = np.interp(weight[-1] / 2, weight - np.diff(weight, prepend=0.0) / 2, changes[order])
    return float(reached)


def _ratio(number: int) -> float:
    """Returns the variance of a median of so many values, relative to theirs."""
    return (_OF_MEDIAN if number > 2 else 1.0) / number


def _squared_error(deviations: FloatArray, variances: FloatArray, of_median: float) -> FloatArray:
    """Returns the square of the standard error of each place's change."""
    ranks = np.count_nonzero(~np.isnan(deviations), axis=1)
    within, freedom = nan_mean(variances), np.maximum(ranks - 1, 0)
    within = _moderated(within, ranks * _OF_STEPS, float(nan_median(within)))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.nansum(deviations**2, axis=1) / freedom
        excess = nan_median(np.where(freedom > 0, between / within / _middle_of_chi_square(freedom), np.nan))
        expected = within * max(1.0, _or_one(float(excess)))
        variance = np.where(freedom > 0, (_PRIOR * expected + freedom * between) / (_PRIOR + freedom), expected)
        found: FloatArray = np.maximum(variance, within) * np.where(ranks > 2, of_median, 1.0) / ranks
    return found


def _number_of_runs(runs: IntArray | None) -> int:
    return 1 if runs is None else len(np.unique(runs))


def _over_ranks(changes: FloatArray, variances: FloatArray, runs: IntArray | None) -> tuple[FloatArray, FloatArray]:
    """Returns both as they are, (places, ranks), of one pair of runs; of several, (places, pairs).

    The ranks of a run have in common what only repeated runs show: they count as one.
    """
    if runs is None or _number_of_runs(runs) < 2:
        return changes, variances
    tables = [(changes[:, runs == run], variances[:, runs == run]) for run in np.unique(runs)]
    change = np.stack([nan_median(own) for own, _ in tables], axis=1)
    variance = [
        nan_mean(of_steps) / np.maximum(np.count_nonzero(~np.isnan(own), axis=1), 1) for own, of_steps in tables
    ]
    return change, np.stack(variance, axis=1)


def _moderated(variance: FloatArray, freedom: FloatArray, expected: float) -> FloatArray:
    found: FloatArray = (freedom * variance + _PRIOR * expected) / (freedom + _PRIOR)
    return found


def _middle_of_chi_square(freedom: FloatArray) -> FloatArray:
    """Returns the median of chi-square divided by its degrees of freedom (Wilson and Hilferty)."""
    found: FloatArray = (1 - 2 / (9 * np.maximum(freedom, 1))) ** 3
    return found


def _or_one(value: float) -> float:
    return value if np.isfinite(value) else 1.0


def _bounds(changes: FloatArray, errors: FloatArray, trust: float) -> FloatArray:
    """Returns how far each change goes by chance, by those of the others; NaN where they are few.

    ``trust``: the degrees of freedom that the errors themselves count for.
    """
    places = len(changes)
    if places < LEAST_PLACES:
        return np.full(places, np.nan)
    deviates = np.abs(changes / errors)
    order = np.argsort(-deviates)
    for outliers in range(max(1, int(_MOST_OUTLIERS * places)), 0, -1):
        bound = _bound_by(deviates[order[outliers:]], places, trust)
        if deviates[order[outliers - 1]] > bound:
            return bound * errors
    others = ~np.eye(places, dtype=bool)
    return np.array([_bound_by(deviates[other], places, trust) for other in others]) * errors


def _bound_by(others: FloatArray, places: int, trust: float) -> float:
    """Returns the bound in standard errors by those of ``others``, of so many comparisons (Bonferroni)."""
    freedom = trust + len(others)
    inflation = max(1.0, (trust + float((others**2).sum())) / freedom)
    return float(student_quantile(1 - (1 - CONFIDENCE) / 2 / places, freedom) * np.sqrt(inflation))
