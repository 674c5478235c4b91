"""How unequal loads are: the measures of load balance that papers and training stacks use.

With loads n_i of E experts (or ep ranks), their mean m and shares p_i = n_i / sum(n):

    max/mean   max(n) / m                          1 = balanced, E = all tokens at one expert
    MaxVio     max(n) / m - 1                      "Auxiliary-Loss-Free Load Balancing", arXiv 2408.15664
    CV         sqrt(mean((n_i - m)^2)) / m         the square root of the loss of Shazeer et al. 2017, arXiv 1701.06538
    entropy    -sum(p_i ln p_i) / ln E             1 = balanced, 0 = all tokens at one expert
    Gini       sum_ij |n_i - n_j| / (2 E^2 m)      0 = balanced, (E - 1) / E = all tokens at one expert
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.report import LoadMetrics, LoadsByStep
from distprof.merge.stats import to_number

_FEWEST = 8
#: The standard normal quantile of a two-sided test at the 1 % level.
_CERTAIN = 2.576


def load_metrics(loads: Sequence[float | None]) -> LoadMetrics | None:
    """Returns the measures of the known loads, None where nothing was processed or no load is known.

    ``hottest`` and ``coldest`` are places in ``loads``, the first of equal ones.
    """
    places = [place for place, load in enumerate(loads) if load is not None]
    known = np.array([load for load in loads if load is not None], np.float64)
    total = float(known.sum())
    if not total:
        return None
    violation = float(max_violations(known[None])[0])
    return LoadMetrics(
        max_over_mean=violation + 1,
        max_violation=violation,
        cv=float(deviations(known[None])[0]),
        entropy=float(entropies(known[None])[0]),
        gini=float(ginis(known[None])[0]),
        hottest=places[int(known.argmax())],
        coldest=places[int(known.argmin())],
    )


def max_violations(loads: FloatArray) -> FloatArray:
    """Returns MaxVio of each row of (steps, experts); NaN for a row without tokens.  NaN loads are left out."""
    filled = np.nan_to_num(loads)
    known = np.count_nonzero(~np.isnan(loads), axis=1)
    totals = filled.sum(axis=1)
    ratios = np.divide(
        filled.max(axis=1, initial=0.0) * known, totals, out=np.full(len(loads), np.nan), where=totals > 0
    )
    found: FloatArray = ratios - 1
    return found


def entropies(loads: FloatArray) -> FloatArray:
    """Returns the normalised entropy of each row of (steps, experts); NaN for a row without tokens."""
    known = np.count_nonzero(~np.isnan(loads), axis=1)
    filled = np.nan_to_num(loads)
    totals = filled.sum(axis=1, keepdims=True)
    shares = np.divide(filled, totals, out=np.zeros_like(filled), where=totals > 0)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logarithms).sum(axis=1)
    most = np.log(np.maximum(known, 1))
    normalised = np.divide(entropy, most, out=np.ones(len(loads)), where=most > 0)
    return np.where(totals[:, 0] > 0, np.clip(normalised, 0.0, 1.0), np.nan)


def deviations(loads: FloatArray) -> FloatArray:
    """Returns the CV of each row of (steps, experts); NaN for a row without tokens.  NaN loads are left out."""
    known = _known(loads)
    means = known.mean(axis=1)
    found: FloatArray = np.divide(known.std(axis=1), means, out=np.full(len(loads), np.nan), where=means > 0)
    return found


def ginis(loads: FloatArray) -> FloatArray:
    """Returns the Gini coefficient of each row of (steps, experts); NaN for a row without tokens.  NaN loads are left
    out.

    With loads in ascending order, the sum over all pairs is 2 * sum((2 i - E - 1) * n_i), i from 1 to E.
    """
    ordered = np.sort(_known(loads), axis=1)
    number, totals = ordered.shape[1], ordered.sum(axis=1)
    weighted = 2 * (ordered @ np.arange(1, number + 1))
    shares = np.divide(weighted, number * totals, out=np.full(len(loads), np.nan), where=totals > 0)
    found: FloatArray = np.maximum(0.0, shares - (number + 1) / number)
    return found


def _known(loads: FloatArray) -> FloatArray:
    """Returns the columns that have loads; zeros where none has."""
    known = loads[:, ~np.isnan(loads).all(axis=0)]
    return known if known.size else np.zeros((len(loads), 1))


def by_step(loads: FloatArray) -> LoadsByStep:
    """Returns the measures of each row of (steps, experts); NaN loads are left out."""
    empty = ~(np.nan_to_num(loads).sum(axis=1) > 0)

    def places(filled: FloatArray, find: Callable[..., IntArray]) -> tuple[int | None, ...]:
        found = find(filled, axis=1).tolist() if loads.shape[1] else [0] * len(loads)
        return tuple(None if none else place for none, place in zip(empty, found, strict=True))

    return LoadsByStep(
        max_violation=tuple(map(to_number, max_violations(loads))),
        cv=tuple(map(to_number, deviations(loads))),
        entropy=tuple(map(to_number, entropies(loads))),
        gini=tuple(map(to_number, ginis(loads))),
        hottest=places(np.nan_to_num(loads, nan=-np.inf), np.argmax),
        coldest=places(np.nan_to_num(loads, nan=np.inf), np.argmin),
    )


def trend(values: Sequence[float]) -> int:
    """Returns 1 where a series over time rises, -1 where it falls, 0 where neither is certain at the 1 % level.

    The test of Mann (1945) and Kendall: the number of pairs that rise less those that fall, against its deviation for
    a series in random order, which is normal from 8 values on; ties make the deviation smaller.
    """
    number = len(values)
    if number < _FEWEST:
        return 0
    array = np.asarray(values, np.float64)
    rising = int(np.sign(array[None, :] - array[:, None])[np.triu_indices(number, 1)].sum())
    _, ties = np.unique(array, return_counts=True)
    variance = (_pairs_term(number) - sum(map(_pairs_term, ties.tolist()))) / 18
    if variance <= 0 or (abs(rising) - 1) / math.sqrt(variance) < _CERTAIN:
        return 0
    return 1 if rising > 0 else -1


def _pairs_term(number: int) -> int:
    return number * (number - 1) * (2 * number + 5)
