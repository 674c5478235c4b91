"""Each rank's part of each MoE layer: the experts that it hosts, and the tokens that they processed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.experts.recorded.alike_ranks import alike_ranks
from distprof.merge.experts.recorded.routing import RoutedTokens, routed_tokens
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.records import ExpertLayer, LayerCalls


@dataclass(frozen=True, eq=False, slots=True)  # a large run has many
class ExpertHost:
    """The part of one layer that one rank has, or several ranks that host the same experts."""

    ranks: tuple[int, ...]  # ascending
    data: RankData  # of the first of these ranks
    layer: ExpertLayer
    number: int  # of the layer on these ranks
    seen: TokenCounts | None  # None where no step has counts; of several ranks their sum, each token once
    group: tuple[int, ...]  # ranks of one group may host slices or copies of the same experts
    sliced: bool  # tensor parallelism slices the experts
    ep: int  # coordinate on the axis that distributes the experts
    timed: bool  # whether the ranks have timed steps
    source: RoutedTokens | None  # of a single rank

    @property
    def rank(self) -> int:
        """The first of the ranks."""
        return self.ranks[0]

    @property
    def iterations(self) -> tuple[int, ...]:
        """The iterations in which the tokens of its experts were counted."""
        return self.seen.iterations if self.seen else ()

    def tokens(self, iterations: tuple[int, ...]) -> IntArray:
        """Returns the tokens summed over the given iterations, (local experts,)."""
        assert self.seen is not None
        if self.seen.iterations == iterations:
            return self.seen.total
        total: IntArray = self.at(iterations).sum(axis=0)
        return total

    def at(self, iterations: Sequence[int]) -> IntArray:
        """Returns the tokens as (iterations, local experts), for the given iterations only."""
        assert self.seen is not None
        if self.seen.iterations == iterations:
            return self.seen.loads
        return self.seen.loads[np.isin(self.seen.iterations, iterations)]


@dataclass(frozen=True, eq=False, slots=True)
class TokenCounts:
    """The tokens that the experts of one layer processed on one rank."""

    iterations: tuple[int, ...]
    loads: IntArray  # (iterations, local experts)
    total: IntArray  # the sums over the iterations, by local expert
    calls: Mapping[int, LayerCalls]  # by iteration, where the layer was called more than once


def expert_hosts(analysis: Analysis) -> Iterator[tuple[int, list[ExpertHost]]]:
    """Yields (column of a rank in the union, one host for each of its layers), for single ranks and for ranks that are
    alike (:mod:`distprof.merge.experts.recorded.alike_ranks`).
    """
    layout = analysis.layout
    known: dict[tuple[RankTree, ParameterSet, int], bool] = {}  # ranks with equal trees and parameters share an entry

    def is_sliced(data: RankData, row: int) -> bool:
        key = data.tree, data.parameters, row
        if key not in known:
            known[key] = _is_sliced(data, row)
        return known[key]

    for alike in alike_ranks(analysis, is_sliced):
        data, window = alike.data, alike.window
        parts = zip(data.layers, _token_counts(data, window), routed_tokens(data, window, layout), strict=True)
        yield (
            alike.column,
            [
                ExpertHost(
                    ranks=alike.ranks,
                    data=data,
                    layer=layer,
                    number=number,
                    seen=seen,
                    group=alike.group,
                    sliced=is_sliced(data, layer.row),
                    ep=layout.coordinates[data.rank].get(layer.axis, 0),
                    timed=window is not None and window.steps > 0,
                    source=source,
                )
                for number, (layer, seen, source) in enumerate(parts)
            ],
        )


def _is_sliced(data: RankData, row: int) -> bool:
    """Returns whether tensor parallelism slices the experts below ``row``."""
    inside = data.tree.subtree(row)
    return not data.parameters.sliced_rows.isdisjoint(data.parameters.expert_rows & inside or inside)


def _token_counts(data: RankData, window: Window | None) -> Iterator[TokenCounts | None]:
    """Yields one item for each layer of the rank, None where no step has its tokens."""
    if window is None or window.loads is None:
        yield from (None for _ in data.layers)
        return
    every: IntArray = window.loads.astype(np.int64)
    calls: list[dict[int, LayerCalls]] = [{} for _ in data.layers]
    for iteration, own in zip(window.load_iterations, window.calls, strict=False):
        for one in own:
            if one.layer < len(calls):
                calls[one.layer][iteration] = one
    total, start = every.sum(axis=0), 0
    for number, layer in enumerate(data.layers):
        end = start + len(layer.local_experts) * layer.counted
        steps = [at for at, unseen in enumerate(window.unseen) if number not in unseen]
        if not layer.counted or not steps:
            yield None
        elif len(steps) == len(window.unseen):
            yield TokenCounts(window.load_iterations, every[:, start:end], total[start:end], calls[number])
        else:
            loads = every[steps, start:end]
            iterations = tuple(window.load_iterations[at] for at in steps)
            yield TokenCounts(iterations, loads, loads.sum(axis=0), calls[number])
        start = end
