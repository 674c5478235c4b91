"""The merged module tree: work and times of every module, over the ranks that have it.

    windows (rows of one rank) -> ModuleUnion.stack: tables (modules, ranks), or .mean: over the ranks -> ModuleStats

Work is exact on each rank, so there a module's inclusive MACs are its own plus its children's; over ranks it is the
mean.  Times are medians over steps and then over ranks, so parents equal the sum of their parts only nearly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, FloatArray, IntArray, ShortFloatArray, padded
from distprof.merge.job.module_union import Module
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.window import Window
from distprof.merge.report import ModuleStats, ModuleTimes
from distprof.merge.stats import nan_median, to_number
from distprof.merge.work.compiled_kernels import COMPILED, inside_compiled
from distprof.plain import dataclass
from distprof.records import Array, Counts

#: Reads one value for each row of a rank's tree; None where the rank has no such data.
Pick = Callable[[RankTree, Window], Array | None]


@dataclass(frozen=True, eq=False)
class TimeTables:
    """Times as (modules, ranks): medians over steps in ns, NaN where the rank has no such module or no timed step.

    A module that no rank called (a ModuleList, a module inside a compiled region) has no self time, and no inclusive
    time either where its whole subtree was never called.  There are no backward times where nothing trains.
    """

    forward_self: ShortFloatArray
    backward_self: ShortFloatArray
    forward: ShortFloatArray  # inclusive
    backward: ShortFloatArray  # inclusive
    own: ShortFloatArray  # the self times of each module twice: in forward, then in backward


@computed_once
def time_tables(analysis: Analysis) -> TimeTables:
    """Returns the times of all modules on all ranks."""
    called = _mean(analysis, lambda _, window: window.times.calls if window.times else None) > 0
    called_below = _any_below(called, analysis.union.modules)
    windows = (analysis.windows.get(data.rank) for data in analysis.ranks)
    times = analysis.union.stack([window.times.times if window and window.times else None for window in windows], 4)
    trains = np.full(len(called), analysis.trains)
    for table, known in zip(times, (called, called & trains, called_below, called_below & trains), strict=True):
        table[~known] = np.nan
    forward_self, backward_self, forward, backward = times
    return TimeTables(forward_self, backward_self, forward, backward, times[:2].reshape(-1, times.shape[-1]))


def module_times(analysis: Analysis) -> ModuleTimes:
    """Returns the times of all modules on all ranks, as the report has them."""
    times = time_tables(analysis)
    return ModuleTimes(
        ranks=tuple(data.rank for data in analysis.ranks),
        forward_self_ns=times.forward_self,
        backward_self_ns=times.backward_self,
        forward_ns=times.forward,
        backward_ns=times.backward,
    )


def module_stats(analysis: Analysis) -> tuple[ModuleStats, ...]:
    """Returns one row for each module, in the order of the union."""
    union, times = analysis.union, time_tables(analysis)
    columns = zip(
        union.modules,
        union.holders().tolist(),
        union.mean((one.ranks, one.kind, one.tree.total_params) for one in _alike_ranks(analysis)).tolist(),
        union.mean((one.ranks, one.kind, one.tree.own_params) for one in _alike_ranks(analysis)).tolist(),
        _mean(analysis, _calls),
        _mean(analysis, _counted(lambda counts: counts.forward_macs, inclusive=True)),
        _mean(analysis, _counted(lambda counts: counts.forward_flops, inclusive=True)),
        _mean(analysis, _counted(lambda counts: counts.forward_macs, inclusive=False)),
        *(_backward_work(analysis, pick) for pick in _BACKWARD_WORK),
        nan_median(times.forward),
        nan_median(times.backward),
        nan_median(times.forward_self),
        nan_median(times.backward_self),
        strict=True,
    )
    return tuple(_row(*column) for column in columns)


def _row(
    module: Module, ranks: int, params: float, own_params: float, calls: float, macs: float, flops: float,
    self_macs: float, bwd_macs: float, bwd_flops: float, recompute_flops: float,
    forward: float, backward: float, forward_self: float, backward_self: float,
) -> ModuleStats:  # fmt: skip
    return ModuleStats(
        label=module.label,
        name=module.row.name,
        class_name=module.row.class_name,
        root=module.model,
        stage=module.stage if module.stage >= 0 else None,
        parent=module.parent,
        depth=module.depth,
        extra_repr=module.row.extra_repr,
        wrapper=module.row.wrapper,
        ranks=ranks,
        params=params,
        own_params=own_params,
        calls=to_number(calls) or 0.0,
        macs=to_number(macs),
        flops=to_number(flops),
        self_macs=to_number(self_macs),
        bwd_macs=to_number(bwd_macs),
        bwd_flops=to_number(bwd_flops),
        recompute_flops=to_number(recompute_flops),
        forward_ns=to_number(forward),
        backward_ns=to_number(backward),
        forward_self_ns=to_number(forward_self),
        backward_self_ns=to_number(backward_self),
    )


@dataclass(frozen=True, eq=False)
class _AlikeRanks:
    """Ranks with the same modules, counted work and calls in timed steps."""

    ranks: int
    kind: int  # of their modules in the union
    tree: RankTree
    window: Window | None  # of the first of them


@computed_once
def _alike_ranks(analysis: Analysis) -> list[_AlikeRanks]:
    """Returns all ranks, those that are alike together, in the order of the first ones."""
    first: dict[tuple[int, int, int], int] = {}  # -> column
    number: Counter[tuple[int, int, int]] = Counter()
    windows = [analysis.windows.get(data.rank) for data in analysis.ranks]
    for column, window in enumerate(windows):
        shared = (id(window.counts), id(window.times and window.times.calls)) if window else (0, 0)
        key = (analysis.union.kind(column), *shared)
        first.setdefault(key, column)
        number[key] += 1
    return [
        _AlikeRanks(number[key], key[0], analysis.ranks[column].tree, windows[column]) for key, column in first.items()
    ]


def _mean(analysis: Analysis, pick: Pick) -> FloatArray:
    """Returns by module the mean over the ranks that have a value."""
    picked = ((one, pick(one.tree, one.window) if one.window else None) for one in _alike_ranks(analysis))
    return analysis.union.mean((one.ranks, one.kind, own) for one, own in picked if own is not None)


def _counted(pick: Callable[[Counts], Array], *, inclusive: bool) -> Pick:
    known: dict[tuple[int, int], FloatArray] = {}  # ranks with the same work share the array of it

    def picked(tree: RankTree, window: Window) -> FloatArray | None:
        counts = window.counts
        if counts is None:
            return None
        key = id(tree), id(pick(counts))
        if counts.compiled == COMPILED or key not in known:
            known[key] = _work(tree, counts, padded(pick(counts), len(tree)), inclusive=inclusive)
        return known[key]

    return picked


def _work(tree: RankTree, counts: Counts, own: IntArray, *, inclusive: bool) -> FloatArray:
    work: FloatArray = (tree.inclusive(own) if inclusive else own).astype(np.float64)
    work[inside_compiled(tree, counts)] = np.nan
    return work


#: The columns of :class:`ModuleStats` that hold the work of backward.
_BACKWARD_WORK: tuple[Callable[[Counts], Array], ...] = (
    lambda counts: counts.backward_macs,
    lambda counts: counts.backward_flops,
    lambda counts: counts.recompute_flops,
)


def _backward_work(analysis: Analysis, pick: Callable[[Counts], Array]) -> FloatArray:
    """Returns the inclusive work by module, as the mean over ranks; NaN where nothing trains."""
    work = _mean(analysis, _counted(pick, inclusive=True))
    return work if analysis.trains else np.full_like(work, np.nan)


def _calls(tree: RankTree, window: Window) -> Array | None:
    """Returns the calls in the timed steps, or in the counted step where no step was timed."""
    if window.times:
        return window.times.calls
    return padded(window.counts.calls, len(tree)).astype(np.float64) if window.counts else None


def _any_below(called: BoolArray, modules: Sequence[Module]) -> BoolArray:
    """Returns for each module whether any module in its subtree was called."""
    below: BoolArray = called.copy()
    for index in range(len(below) - 1, 0, -1):
        parent = modules[index].parent
        if parent >= 0:
            below[parent] |= below[index]
    return below
