"""Ranks that host the same experts in all their layers: their tokens are added up before layers are looked at.

A job of 16,384 ranks with 41 MoE layers has 670,000 pairs of a rank and a layer.  Of most ranks only sums over those
with the same experts are needed.

    ranks -> tensor-parallel groups, whose tokens count once -> ranks with the same layers, ep place and iterations
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.plain import dataclass
from distprof.records import AXES

#: Returns whether tensor parallelism slices the experts of a rank below a row of its tree.
IsSliced = Callable[[RankData, int], bool]


@dataclass(frozen=True, eq=False)
class AlikeRanks:
    """One rank with MoE layers, or several that are alike."""

    ranks: tuple[int, ...]  # ascending
    column: int  # of the first one in the union
    data: RankData  # of the first one
    window: Window | None  # of the first one, with the tokens of all, each once
    group: tuple[int, ...]  # of the first one: its coordinates without those of tensor parallelism of experts


def alike_ranks(analysis: Analysis, is_sliced: IsSliced) -> Iterator[AlikeRanks]:
    """Yields all ranks with MoE layers; single ones where routers were read, or calls in a step were told apart: each
    has choices, or micro-batches, of its own.
    """
    groups: dict[tuple[int, ...], list[AlikeRanks]] = {}
    axes = _axes_of_groups(analysis.layout)
    for column, data in enumerate(analysis.ranks):
        if data.layers:
            group = analysis.layout.piece(data.rank, axes)
            own = AlikeRanks((data.rank,), column, data, analysis.windows.get(data.rank), group)
            groups.setdefault(group, []).append(own)
    alike: dict[Hashable, list[list[AlikeRanks]]] = {}
    axes_of = {id(data.layers): tuple(dict.fromkeys(one.axis for one in data.layers)) for data in _one_each(analysis)}
    for members in groups.values():
        key, *others = (_key(analysis, one, axes_of[id(one.data.layers)]) for one in members)
        same = key is not None and all(other == key for other in others)
        if same and _count_once(members, analysis.counted, is_sliced):
            alike.setdefault(key, []).append(members)
        else:
            yield from members
    yield from map(_together, alike.values())


def _one_each(analysis: Analysis) -> Iterable[RankData]:
    """Returns one rank for each object with MoE layers, which many ranks share."""
    return {id(data.layers): data for data in analysis.ranks}.values()


def _key(analysis: Analysis, one: AlikeRanks, axes: Sequence[str]) -> Hashable | None:
    """Returns what is equal for ranks that are alike; None for a rank that is like no other.

    ``axes`` are those that distribute the experts of its layers.
    """
    window, data = one.window, one.data
    if window is None or window.routings or window.calls:
        return None
    if window.counted_routing is not None and window.counted_routing.layers:
        return None
    model = data.tree, data.parameters, id(data.layers), id(analysis.union.index(one.column))
    shape = None if window.loads is None else window.loads.shape
    steps = window.steps > 0, window.load_iterations, window.unseen, shape
    return *model, *analysis.layout.piece(data.rank, axes), *steps


def _count_once(members: Sequence[AlikeRanks], counted: Mapping[int, CountedWork], is_sliced: IsSliced) -> bool:
    """Returns whether the ranks of one tensor-parallel group saw the same tokens in all layers, or no tokens."""
    first = members[0]
    loads = [one.window.loads for one in members if one.window and one.window.loads is not None]
    if len(members) == 1 or not loads or all(is_sliced(first.data, layer.row) for layer in first.data.layers):
        return True
    work = counted.get(first.data.rank)
    if work is not None and any(map(work.routes_own_tokens, first.data.layers)):
        return False
    return all(np.array_equal(loads[0], other) for other in loads[1:])


def _together(groups: Sequence[Sequence[AlikeRanks]]) -> AlikeRanks:
    """Returns the ranks of several groups, whose first members have the tokens that count."""
    first = groups[0][0]
    ranks = tuple(sorted(one.data.rank for members in groups for one in members))
    tokens = [members[0].window.loads for members in groups if members[0].window]
    loads = [own for own in tokens if own is not None]
    if first.window is None or not loads:
        return replace(first, ranks=ranks)
    total: IntArray = np.zeros(loads[0].shape, np.int64)
    for own in loads:
        total += own
    return replace(first, ranks=ranks, window=replace(first.window, loads=total))


def _axes_of_groups(layout: JobTopology) -> tuple[str, ...]:
    """Returns all axes but tp, or but etp where experts have tensor parallelism of their own."""
    if layout.info.sizes.get("etp", 1) > 1 and "edp" in layout.info.sizes:
        return "pp", "ep", "edp"
    return tuple(axis for axis in AXES if axis != "tp")
