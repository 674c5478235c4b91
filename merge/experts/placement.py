"""A better distribution of a layer's experts over its ep ranks, with as many experts on each as now.

    loads of every second step -> heaviest expert first, each to the ep rank that has least so far and room for more
    loads of the other steps   -> max/mean of the ep ranks, now and with that distribution

The rule is the one of Graham for equal machines (longest processing time first, 1969), with a limit on the number of
experts of a rank.  A distribution that only suits chance does not look good, because other steps judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.experts.metrics import max_violations
from distprof.merge.report import Placement

_FEWEST_STEPS = 4


def better_placement(loads: FloatArray, now: Sequence[int], ep_size: int) -> Placement | None:
    """Returns a distribution of the experts for the loads, (steps, experts); ``now`` has the ep coordinate of each.

    None where loads are not known, there are fewer than 4 steps, or ep ranks have different numbers of experts.
    """
    experts = loads.shape[1]
    if len(loads) < _FEWEST_STEPS or ep_size < 2 or experts % ep_size or not np.isfinite(loads).all():
        return None
    current = np.asarray(now, np.int64)
    if (np.bincount(current, minlength=ep_size) != experts // ep_size).any():
        return None
    fitted = fit(loads[::2].sum(axis=0), ep_size)
    judged = loads[1::2].sum(axis=0)
    if not judged.sum():
        return None
    return Placement(
        ep_of_expert=tuple(fitted.tolist()),
        max_over_mean_now=_max_over_mean(judged, current, ep_size),
        max_over_mean=_max_over_mean(judged, fitted, ep_size),
    )


def first_experts(ep_of_expert: Sequence[int], ep_size: int) -> tuple[int, ...]:
    """Returns the first expert of each ep rank but the first; empty where one of them has its experts not in a row."""
    pairs = pairwise(ep_of_expert)
    starts = tuple(expert for expert, (before, own) in enumerate(pairs, 1) if before != own)
    return starts if len(starts) == ep_size - 1 else ()


def fit(loads: FloatArray, ep_size: int) -> IntArray:
    """Returns the ep coordinate of each expert, (experts,), with as many experts on each; ``loads`` are (experts,).

    The largest load comes first, and goes to the ep rank with the least so far that has room.
    """
    room = np.full(ep_size, len(loads) // ep_size)
    sums = np.zeros(ep_size)
    place = np.zeros(len(loads), np.int64)
    for expert in np.argsort(-loads, kind="stable"):
        free = np.nonzero(room)[0]
        chosen = free[np.argmin(sums[free])]
        place[expert] = chosen
        sums[chosen] += loads[expert]
        room[chosen] -= 1
    return place


def _max_over_mean(loads: FloatArray, place: IntArray, ep_size: int) -> float:
    sums = np.bincount(place, weights=loads, minlength=ep_size)
    return float(max_violations(sums[None].astype(np.float64))[0]) + 1
