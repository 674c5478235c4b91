"""The loads of one layer's experts step by step, over all ranks: what :mod:`distprof.merge.experts.load` sums up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.experts.metrics import by_step, trend
from distprof.merge.experts.recorded.hosts import ExpertHost
from distprof.merge.experts.recorded.routing import RoutedTokens
from distprof.merge.report import LoadOverSteps


def processed_by_step(hosting: Sequence[ExpertHost], iterations: tuple[int, ...], experts: int) -> FloatArray:
    """Returns the tokens that experts processed, (iterations, experts); NaN for an expert that no host has."""
    sums: dict[tuple[int, ...], IntArray] = {}  # by the experts of a host, which many ranks have alike
    for host in hosting:
        local, own = host.layer.local_experts, host.at(iterations)
        sums[local] = sums[local] + own if local in sums else own
    loads, hosted = np.zeros((len(iterations), experts)), np.zeros(experts, np.bool_)
    for local, total in sums.items():
        loads[:, list(local)] += total
        hosted[list(local)] = True
    loads[:, ~hosted] = np.nan
    return loads


def kept_by_step(sources: Sequence[RoutedTokens], iterations: Sequence[int], experts: int) -> FloatArray | None:
    """Returns the tokens that routers chose and did not drop, (iterations, experts); None where these are not known.

    Each token is in one of ``sources``.
    """
    loads = np.zeros((len(iterations), experts))
    for source in sources:
        kept = source.kept_at(iterations)
        if kept is None:
            return None
        loads[:, : kept.shape[1]] += kept
    return loads


def dropped_by_step(
    sources: Sequence[RoutedTokens], iterations: Sequence[int], processed: FloatArray | None
) -> tuple[int, ...]:
    """Returns how many choices of the routers were dropped in each step; empty where that is not known.

    ``processed`` are the tokens that experts processed, (iterations, experts), where all hosts counted them.
    """
    if not sources:
        return ()
    chosen = chosen_by_step(sources, iterations)
    kept = kept_by_step(sources, iterations, max(one.routed.shape[1] for one in sources))
    left = kept if kept is not None else processed
    if left is None or not np.isfinite(left).all():
        return ()
    dropped = (chosen - left.sum(axis=1)).astype(np.int64)
    return tuple(dropped.tolist()) if (dropped >= 0).all() else ()


def chosen_by_step(sources: Sequence[RoutedTokens], iterations: Sequence[int]) -> IntArray:
    """Returns how many choices the routers made, with those whose expert is not known, (iterations,)."""
    chosen = np.zeros(len(iterations), np.int64)
    for one in sources:
        chosen += one.at(iterations).sum(axis=1, dtype=np.int64) + one.lost_at(iterations)
    return chosen


def over_steps(iterations: Sequence[int], loads: FloatArray) -> LoadOverSteps:
    """Returns how the loads, (iterations, experts), change over the steps."""
    measures = by_step(loads)
    later = loads[len(loads) // 2 :]
    asleep = (np.nansum(loads, axis=0) > 0) & (np.nansum(later, axis=0) == 0)
    return LoadOverSteps(
        **vars(measures),
        iterations=tuple(iterations),
        dead=tuple(np.count_nonzero(loads == 0, axis=1).tolist()),
        trend=trend([one for one in measures.max_violation if one is not None]),
        fallen_asleep=tuple(np.nonzero(asleep)[0].tolist()),
    )
