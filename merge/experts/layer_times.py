"""Where the time of a MoE layer goes: its router, its experts, shared experts, and all else.

    parameters of each module -> part of each module inside a layer -> self times by part and rank -> mean over ranks

A module belongs to a part if all parameters at or below it do; a module without parameters belongs to that of its
parent.  All else is the layer's own code: it sends tokens to their experts (dispatch) and adds up what comes back
(combine), and the waits for other ranks are in it; distprof.merge.experts.dispatch_times tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, FloatArray, IntArray, distinct
from distprof.merge.experts.dispatch_times import NO_MODULES, SHORT, DispatchTimes, dispatch_times
from distprof.merge.load.parameters import kind_of
from distprof.merge.report import LayerTimes
from distprof.merge.times.module_profile import time_tables
from distprof.records import EXPERT, ROUTER, SHARED

_GATE, _EXPERTS, _SHARED, _ELSE = range(4)
#: Bits of the kinds of parameters; dense ones have the highest.
_BITS = {ROUTER: 1 << _GATE, EXPERT: 1 << _EXPERTS, SHARED: 1 << _SHARED}
_PARTS = {1 << part: part for part in (_GATE, _EXPERTS, _SHARED)}


@computed_once
def layer_times(analysis: Analysis) -> dict[int, LayerTimes]:
    """Returns the times of each MoE layer by its module of the union; layers without a timed step are left out."""
    layer_of = enclosing_layers(analysis)
    part_of = _parts(_parameter_kinds(analysis), layer_of, [module.parent for module in analysis.union.modules])
    apart = dispatch_times(analysis, layer_of, part_of == _EXPERTS, part_of == _ELSE)
    tables = time_tables(analysis)
    forward, backward = tables.forward_self, tables.backward_self
    found = {}
    for layer in distinct(layer_of[layer_of >= 0]).tolist():
        inside = np.flatnonzero(layer_of == layer)
        own = np.nan_to_num(forward[inside]).astype(np.float64) + np.nan_to_num(backward[inside])
        seen = ~np.isnan(forward[inside])
        if seen.any():
            gate, experts, shared, rest = (
                _mean_over_ranks(own, seen, part_of[inside] == part) for part in (_GATE, _EXPERTS, _SHARED, _ELSE)
            )
            times = LayerTimes(gate, experts, shared, rest)
            found[layer] = _with_dispatch(times, apart.get(layer))
    return found


def _with_dispatch(times: LayerTimes, apart: DispatchTimes | None) -> LayerTimes:
    if times.experts_ns is None:
        return replace(times, not_apart=NO_MODULES)
    if apart is None:
        return replace(times, not_apart=SHORT)
    return replace(times, dispatch_ns=apart.dispatch_ns, combine_ns=apart.combine_ns, not_apart=apart.why)


def enclosing_layers(analysis: Analysis) -> IntArray:
    """Returns (modules of the union,): the module of the MoE layer that each is in or is, -1 for other modules."""
    kinds = {(id(data.layers), id(analysis.union.index(column))): column for column, data in enumerate(analysis.ranks)}
    layers = {
        int(place)
        for column in kinds.values()
        for place in _places(analysis, column, [layer.row for layer in analysis.ranks[column].layers])
    }
    found = np.full(len(analysis.union.modules), -1, np.int64)
    for index, module in enumerate(analysis.union.modules):
        found[index] = index if index in layers else found[module.parent] if module.parent >= 0 else -1
    return found


def _parameter_kinds(analysis: Analysis) -> IntArray:
    """Returns by module of the union the bits of the kinds of its own parameters."""
    bits = np.zeros(len(analysis.union.modules), np.int64)
    done = set()
    for column, data in enumerate(analysis.ranks):
        key = id(data.tree), id(data.parameters)
        if key not in done:
            done.add(key)
            known = [one for one in data.parameters.counted if one.row < len(analysis.union.index(column))]
            places = _places(analysis, column, [one.row for one in known])
            for place, parameter in zip(places.tolist(), known, strict=True):
                bits[place] |= _BITS.get(kind_of(parameter), 1 << _ELSE)
    return bits


def _places(analysis: Analysis, column: int, rows: Sequence[int]) -> IntArray:
    """Returns the modules of the union of a rank's rows, without those that its damaged shard has lost."""
    places = analysis.union.index(column)
    found: IntArray = places[[row for row in rows if row < len(places)]]
    return found


def _parts(bits: IntArray, layer_of: IntArray, parents: list[int]) -> IntArray:
    """Returns the part of each module; parents come before their children."""
    below = bits.copy()
    for index in range(len(below) - 1, 0, -1):
        if layer_of[index] not in (-1, index):
            below[parents[index]] |= below[index]
    found = np.full(len(below), _ELSE, np.int64)
    for index, kinds in enumerate(below.tolist()):
        if layer_of[index] not in (-1, index):
            found[index] = _PARTS.get(kinds, _ELSE) if kinds else found[parents[index]]
    return found


def _mean_over_ranks(own: FloatArray, seen: BoolArray, part: BoolArray) -> float | None:
    """Returns the sum of a part's times, (modules, ranks), as the mean over the ranks that have one."""
    ranks = seen[part].any(axis=0)
    return float(own[part].sum(axis=0)[ranks].mean()) if ranks.any() else None
