"""Each rank's part of each MoE layer: which experts it hosts there, and which tokens they processed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.experts.routing import Source, token_sources
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.records import AXES, ExpertLayer


@dataclass(frozen=True, eq=False)
class ExpertHost:
    """One rank's part of one layer."""

    data: RankData
    layer: ExpertLayer
    seen: VisibleRanks | None  # None where in no step
    group: tuple[int, ...]  # ranks of one may host slices or copies of the same experts
    cut: bool  # tensor parallelism cuts the experts
    ep: int  # coordinate on the axis that spreads them
    timed: bool  # it has timed steps
    source: Source | None

    @property
    def iterations(self) -> tuple[int, ...]:
        """Those in which the tokens of its experts were seen."""
        return self.seen.iterations if self.seen else ()

    def tokens(self, iterations: tuple[int, ...]) -> IntArray:
        """Sums by local expert over some of its iterations."""
        assert self.seen is not None
        if self.seen.iterations == iterations:
            return self.seen.total
        total: IntArray = self.at(iterations).sum(axis=0)
        return total

    def at(self, iterations: Sequence[int]) -> IntArray:
        """(iterations, local experts), some of its iterations."""
        assert self.seen is not None
        return self.seen.loads[np.isin(self.seen.iterations, iterations)]


@dataclass(frozen=True, eq=False)
class VisibleRanks:
    """Tokens of one layer's experts on one rank: (iterations, local experts), and their sums over the iterations."""

    iterations: tuple[int, ...]
    loads: IntArray
    total: IntArray


def expert_hosts(analysis: Analysis) -> Iterator[list[ExpertHost]]:
    """Yields for each rank one host for each of its layers."""
    layout = analysis.layout
    cuts: dict[tuple[RankTree, ParameterSet, int], bool] = {}  # asked once for all ranks that are made alike

    def is_cut(data: RankData, row: int) -> bool:
        key = data.tree, data.parameters, row
        if key not in cuts:
            cuts[key] = _is_cut(data, row)
        return cuts[key]

    for data in analysis.ranks:
        window, group = analysis.windows.get(data.rank), _group(data.rank, layout)
        timed = window is not None and window.steps > 0
        parts = zip(data.layers, _seen(data, window), token_sources(data, window, layout), strict=True)
        yield [
            ExpertHost(
                data, layer, seen, group, is_cut(data, layer.row), _place(data.rank, layer, layout), timed, source
            )
            for layer, seen, source in parts
        ]


def _is_cut(data: RankData, row: int) -> bool:
    inside = data.tree.subtree(row)
    return not data.parameters.sliced_rows.isdisjoint(data.parameters.expert_rows & inside or inside)


def _seen(data: RankData, window: Window | None) -> Iterator[VisibleRanks | None]:
    """By layer."""
    if window is None or window.loads is None:
        yield from (None for _ in data.layers)
        return
    total, start = window.loads.sum(axis=0), 0
    for number, layer in enumerate(data.layers):
        end = start + len(layer.local_experts) * layer.counted
        steps = [at for at, unseen in enumerate(window.unseen) if number not in unseen]
        if not layer.counted or not steps:
            yield None
        elif len(steps) == len(window.unseen):
            yield VisibleRanks(window.load_iterations, window.loads[:, start:end], total[start:end])
        else:
            loads = window.loads[steps, start:end]
            yield VisibleRanks(tuple(window.load_iterations[at] for at in steps), loads, loads.sum(axis=0))
        start = end


def _place(rank: int, layer: ExpertLayer, layout: JobTopology) -> int:
    return layout.coordinates[rank].get(layer.axis, 0)


def _group(rank: int, layout: JobTopology) -> tuple[int, ...]:
    """Where the rank stands but for tp; for experts with tensor parallelism of their own, but for that."""
    if layout.info.sizes.get("etp", 1) > 1 and "edp" in layout.info.sizes:
        return layout.piece(rank, ("pp", "ep", "edp"))
    return layout.piece(rank, [axis for axis in AXES if axis != "tp"])
