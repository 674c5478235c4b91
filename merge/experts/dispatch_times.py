"""Dispatch and combine of a MoE layer told apart: its own code before its experts, and after them.

    long turns of a layer, by step, run of one phase and direction
    -> in forward, those before the first turn of its experts are the dispatch, those after the last one the combine
    -> in backward the other way round: gradients reach what combines first
    -> by rank the median over steps, by layer the mean over ranks

A turn is the time from one event of a module to the next, and has the waits for other ranks in it.  Shorter turns than
records.LONG_TURN_NS are not recorded: they are in neither.
"""

from __future__ import annotations

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import BoolArray, IntArray, combination, largest_of_each, smallest_of_each
from distprof.merge.load.collectives import PhaseStarts, RankCollectives
from distprof.merge.stats import middle
from distprof.plain import dataclass
from distprof.records import NO_ROW

#: Why they are not told apart.
NOT_RECORDED = "it was not recorded when modules ran"
NO_MODULES = "its experts are no modules of their own"
SHORT = "its experts run for less than 1 ms at a time, or it was not recorded when they ran"
#: Of the layer's own long turns, so many may be where no turn of the experts was seen.
_UNPLACED = 0.05


@dataclass(frozen=True)
class DispatchTimes:
    """Means over ranks, in an iteration; both are None where they are not told apart, and ``why`` is the reason."""

    dispatch_ns: float | None
    combine_ns: float | None
    why: str = ""


@dataclass(frozen=True, eq=False)
class _Own:
    """The long turns of the own code of layers on one rank."""

    layer: IntArray  # module of the union
    step: IntArray
    ns: IntArray
    dispatches: BoolArray
    combines: BoolArray
    placed: BoolArray  # turns of the experts were seen around it


def dispatch_times(
    analysis: Analysis, layer_of: IntArray, experts: BoolArray, own: BoolArray
) -> dict[int, DispatchTimes]:
    """Returns the times by the layer's module of the union.

    By module of the union: the layer that it is in (-1: none), whether it is of that layer's routed experts, and
    whether it is of the layer's own code.
    """
    sums: dict[int, list[tuple[float, float]]] = {}
    told: dict[tuple[str, tuple[int, ...]], int] = {}  # why not, of which layers -> the last rank that tells it
    layers_on: dict[tuple[int, int], tuple[int, ...]] = {}  # by the identity of a rank's layers and of its places
    for column, data in enumerate(analysis.ranks):
        window = analysis.timed_windows.get(data.rank)
        if window is None:
            continue
        places = analysis.union.index(column)
        key = id(data.layers), id(places)
        if key not in layers_on:
            layers_on[key] = tuple(sorted({int(places[one.row]) for one in data.layers if one.row < len(places)}))
        found, layers = window.collectives, layers_on[key]
        unseen = NOT_RECORDED if found is None else found.turns_unseen
        if found is None or unseen:
            told[unseen, layers] = column
            continue
        turns = _own_turns(found, places, layer_of, experts, own)
        for layer in layers:
            times = _median_times(turns, layer, len(found.iterations))
            if times is None:
                told[SHORT, (layer,)] = column
            else:
                sums.setdefault(layer, []).append(times)
    why = {layer: reason for reason, layers in sorted(told, key=lambda key: told[key]) for layer in layers}
    known = {layer: np.mean(times, axis=0).tolist() for layer, times in sums.items() if layer not in why}
    return {layer: DispatchTimes(None, None, reason) for layer, reason in why.items()} | {
        layer: DispatchTimes(*times) for layer, times in known.items()
    }


def _median_times(turns: _Own, layer: int, steps: int) -> tuple[float, float] | None:
    """Returns dispatch and combine of one layer on one rank; None where its turns are not placed."""
    inside = turns.layer == layer
    every, placed = turns.ns[inside].sum(), turns.ns[inside & turns.placed].sum()
    if not placed or placed < (1 - _UNPLACED) * every:
        return None
    dispatch, combine = (
        float(middle(np.bincount(turns.step[chosen], turns.ns[chosen], steps)))
        for chosen in (inside & turns.dispatches, inside & turns.combines)
    )
    return dispatch, combine


def _own_turns(
    found: RankCollectives,
    places: IntArray,
    layer_of: IntArray,
    experts: BoolArray,
    own: BoolArray,
) -> _Own:
    turns = found.turns
    row = np.where(turns.owner < 0, ~turns.owner, turns.owner)
    known = np.flatnonzero((turns.owner != NO_ROW) & (row < len(places)))
    module = places[row[known]]
    inside = layer_of[module] >= 0
    seen, module = known[inside], module[inside]
    layer, backward, start, end = layer_of[module], turns.owner[seen] < 0, turns.start_ns[seen], turns.end_ns[seen]
    passes = combination((_runs(found.phases, start), backward.astype(np.int64), layer))
    first, last = _experts_span(np.unique(passes, return_inverse=True)[1], start, end, experts[module])
    placed = first < last
    before, after = placed & (end <= first), placed & (start >= last)
    chosen = own[module]
    return _Own(
        layer=layer[chosen],
        step=turns.step[seen][chosen].astype(np.int64),
        ns=(end - start)[chosen],
        dispatches=np.where(backward, after, before)[chosen],
        combines=np.where(backward, before, after)[chosen],
        placed=placed[chosen],
    )


def _runs(phases: PhaseStarts, moments_ns: IntArray) -> IntArray:
    """Returns the number of the run of one phase that each moment is in."""
    changes = (np.diff(phases.phase, prepend=-1) != 0) | (np.diff(phases.step, prepend=-1) != 0)
    runs = np.append(0, np.cumsum(changes))
    found: IntArray = runs[np.searchsorted(phases.start_ns, moments_ns, side="right")]
    return found


def _experts_span(passes: IntArray, start: IntArray, end: IntArray, experts: BoolArray) -> tuple[IntArray, IntArray]:
    """Returns by turn when the first turn of experts in its pass began, and when the last one ended."""
    size = int(passes.max(initial=-1)) + 1
    first = smallest_of_each(passes[experts], start[experts], size)
    last = largest_of_each(passes[experts], end[experts], size)
    return first[passes], last[passes]
