"""What unequal loads of experts cost: the own times of the ep ranks in a layer, without waits in collectives.

    self times of the layer's modules - waits in them -> own time of each rank -> mean by ep rank -> largest - mean

The layer waits for its slowest ep rank.  With equal loads each would take the mean, as far as time follows tokens; how
much of the cost that may be is :func:`cost_of_loads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.collectives.own_times import RankWaits, rank_waits, why_no_own_times
from distprof.merge.load.window import Window
from distprof.merge.times.module_profile import time_tables
from distprof.records import NO_ROW


@computed_once
def _own_times(analysis: Analysis) -> FloatArray | None:
    """Returns (modules, ranks) own times in an iteration, forward and backward together, NaN where a rank has none;
    None where waits are not known.
    """
    if why_no_own_times(analysis):
        return None
    tables = time_tables(analysis)
    both = np.stack([tables.forward_self, tables.backward_self])
    times = np.where(np.isnan(both).all(axis=0), np.nan, np.nansum(both, axis=0))
    for column, data in enumerate(analysis.ranks):
        if data.rank in rank_waits(analysis) and data.rank in analysis.timed_windows:
            modules, medians = _median_waits(rank_waits(analysis)[data.rank], analysis.timed_windows[data.rank])
            times[modules, column] -= medians
    return np.maximum(times, 0)


def _median_waits(waits: RankWaits, window: Window) -> tuple[IntArray, FloatArray]:
    """Returns the modules in which a rank waited, and for each the median over the timed steps."""
    kept = (waits.owner != NO_ROW) & np.isin(waits.iteration, window.iterations)
    modules, row = np.unique(np.where(waits.owner < 0, ~waits.owner, waits.owner)[kept], return_inverse=True)
    sums = np.zeros((len(modules), window.steps))
    np.add.at(sums, (row, np.searchsorted(window.iterations, waits.iteration[kept])), waits.wait_ns[kept])
    return modules, np.median(sums, axis=1)


def own_time_by_ep(analysis: Analysis, module: int, places: Mapping[int, int], size: int) -> tuple[float | None, ...]:
    """Returns by ep coordinate, of ``size``, the mean over its ranks of the own time in a module of the union and all
    modules inside; None for one without a time, and nothing where waits are not known.

    ``places`` has the ep coordinate of each rank that hosts experts of the layer.
    """
    times = _own_times(analysis)
    if times is None or size < 2:
        return ()
    inside = np.zeros(len(times), bool)
    for index, one in enumerate(analysis.union.modules):
        inside[index] = index == module or (one.parent >= 0 and inside[one.parent])
    sums = np.where(np.isnan(times[inside]).all(axis=0), np.nan, np.nansum(times[inside], axis=0))
    found: list[list[float]] = [[] for _ in range(size)]
    for column, data in enumerate(analysis.ranks):
        if data.rank in places and not np.isnan(sums[column]):
            found[places[data.rank]].append(float(sums[column]))
    return tuple(float(np.mean(own)) if own else None for own in found)


def cost_of_imbalance(own_ns: tuple[float | None, ...]) -> float | None:
    """Returns by how much the slowest ep rank exceeds the mean; None where the time of one is not known."""
    known = [time for time in own_ns if time is not None]
    return max(known) - float(np.mean(known)) if known and len(known) == len(own_ns) else None


def cost_of_loads(own_ns: Sequence[float | None], tokens: Sequence[int | None]) -> float | None:
    """Returns how much of the cost unequal loads explain at most; None where a time or a load is not known.

    It is 0 where another ep rank than the one with the most tokens is slowest: its device or its data make it so.
    Else time grows at most as tokens do: the most loaded rank exceeds the mean by (max/mean of tokens - 1) of it.
    """
    cost = cost_of_imbalance(tuple(own_ns))
    if cost is None or len(own_ns) != len(tokens) or None in tokens or not any(tokens):
        return None
    times, loads = (np.array(values, np.float64) for values in (own_ns, tokens))
    if loads[times.argmax()] < loads.max():
        return 0.0
    return min(cost, float(times.mean() * (loads.max() / loads.mean() - 1)))
