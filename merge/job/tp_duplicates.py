"""The work that tensor-parallel ranks repeat: that of modules that tensor parallelism does not split.

The share of the work of each row that counts is 1 or 1 / tp:

- a module whose parameters are split over tp does its own part of the work;
- a module with whole parameters repeats the work of its peers, unless it saw a tp-th of the tokens that the split
  modules saw (sequence parallel): rows = MACs / elements of its largest parameter;
- experts that the peers host as well repeat their work where each expert did as much on all peers, and the router saw
  all tokens;
- a module without parameters is like the modules below it, and a leaf without parameters like its parent.

    Shape (tree and parameters, shared by many ranks) -> CountedWork (a counted step, shared by some) -> shares
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from math import sqrt

import numpy as np

from distprof.merge.arrays import BoolArray, FloatArray, IntArray, padded
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.merge.stats import middle
from distprof.records import Array, Counts, ExpertLayer


class Shape:
    """What follows from tree and parameters alone."""

    def __init__(self, tree: RankTree, parameters: ParameterSet) -> None:
        self._tree, self._parameters = tree, parameters
        known = sorted(row for row in parameters.largest if row < len(tree))
        #: Rows that own parameters, and the elements of the largest of each.
        self.rows = np.array(known, np.int64)
        self.largest = np.array([parameters.largest[row] for row in known], np.int64)
        self.is_cut = np.array([row in parameters.sliced_rows for row in known], np.bool_)
        self.is_expert = np.array([row in parameters.expert_rows for row in known], np.bool_)
        self._layers: dict[int, tuple[IntArray, IntArray, IntArray]] = {}

    @cached_property
    def own_work(self) -> BoolArray:
        """Returns by row whether tensor parallelism splits it, without regard to experts and sequence parallel."""
        cut, has = np.zeros(len(self._tree), np.int64), np.zeros(len(self._tree), np.int64)
        cut[self.rows[self.is_cut]] = 1
        has[self.rows] = 1
        below, cut_below = self._tree.inclusive(has) > 0, self._tree.inclusive(cut) > 0
        own: BoolArray = np.where(has > 0, cut > 0, cut_below)
        for row in np.flatnonzero(~below).tolist():  # leaves: with their parent's
            parent = self._tree.rows[row].parent
            if parent >= 0:
                own[row] = cut_below[parent] if below[parent] else own[parent]
        return own

    def experts(self, layer: ExpertLayer) -> IntArray:
        """Returns the rows of the layer that own experts' parameters."""
        return self._layer(layer.row)[0]

    def inside_experts(self, layer: ExpertLayer) -> IntArray:
        """Returns the rows of the layer's experts, and of modules that hold nothing else."""
        return self._layer(layer.row)[1]

    def routers(self, layer: ExpertLayer) -> IntArray:
        """Returns the rows of the layer's routers, and of modules with nothing else: some do the product."""
        return self._layer(layer.row)[2]

    def router_elements(self, layer: ExpertLayer) -> int:
        """Returns the elements of the layer's router; 0 where none was seen."""
        own = self._parameters.router_rows & self._tree.subtree(layer.row)
        return max((self._parameters.largest[row] for row in own), default=0)

    def _layer(self, row: int) -> tuple[IntArray, IntArray, IntArray]:
        if row not in self._layers:
            below = self._tree.subtree(row)
            own, routers = self._parameters.expert_rows & below, self._parameters.router_rows & below
            parts = own, self._holding(own, row), self._holding(routers, row)
            experts, inside, routing = (np.array(sorted(part), np.int64) for part in parts)
            self._layers[row] = experts, inside, routing
        return self._layers[row]

    def _holding(self, own: frozenset[int], top: int) -> set[int]:
        """Returns the rows ``own``, all rows below them, and those above, up to ``top``, without others."""
        tree = self._tree
        others = self._parameters.largest.keys() - own
        found: set[int] = set()
        for first in own:
            row = first
            while row >= 0 and row not in found and others.isdisjoint(tree.subtree(row)):
                found |= tree.subtree(row)
                row = tree.rows[row].parent if row != top else -1
        return found | own  # a layer may own weights of its experts, and hold its router


class CountedWork:
    """What a rank counted, or several ranks that counted the same, in the models that are ``roots``, or in all of
    them; work outside of any is model 0's.

    ``data`` is one of the ranks, and ``tp`` the size of the tensor-parallel group.
    """

    def __init__(self, data: RankData, counts: Counts, shape: Shape, tp: int, roots: Collection[int] = ()) -> None:
        self.data, self.counts, self.shape, self.tp = data, counts, shape, tp
        self._own = np.array([row.root in roots for row in data.tree.rows], np.bool_) if roots else None
        self.macs = self.of_models(counts.forward_macs)
        self.flops = self.of_models(counts.forward_flops)
        self.outside = counts.outside if not roots or 0 in roots else {}
        self.layers = tuple(layer for layer in data.layers if self._own is None or self._own[layer.row])

    def of_models(self, work: Array) -> IntArray:
        """Returns the work by row of the tree; 0 in other models."""
        found = padded(work, len(self.data.tree))
        if found.dtype == object:  # beyond 64 bits
            found = found.astype(np.float64)
        return found if self._own is None else found * self._own

    @cached_property
    def sequence_parallel(self) -> IntArray:
        """Returns the rows with whole parameters that saw about a tp-th of the tokens that the split ones saw."""
        shape = self.shape
        tokens = self.macs[shape.rows] / np.maximum(shape.largest, 1)
        cut = tokens[(tokens > 0) & shape.is_cut & ~shape.is_expert]
        if self.tp == 1 or not len(cut):
            return np.zeros(0, np.int64)
        ratio = float(middle(cut)) / np.where(tokens > 0, tokens, np.inf)
        margin = sqrt(self.tp)
        return shape.rows[(ratio >= margin) & (ratio <= self.tp * margin) & ~shape.is_cut & ~shape.is_expert]

    def routes_own_tokens(self, layer: ExpertLayer) -> bool:
        """Returns whether the layer's router saw a tp-th of the tokens: each rank of the tp group has its own."""
        return not self._own_tokens.isdisjoint(self.shape.routers(layer).tolist())

    @cached_property
    def _own_tokens(self) -> frozenset[int]:
        return frozenset(self.sequence_parallel.tolist())

    @cached_property
    def _expert_work(self) -> dict[str, tuple[tuple[int, ...], bytes]]:
        """Returns by layer the experts that the rank hosts, and the MACs of each of their rows."""
        return {
            layer.name: (layer.local_experts, self.macs[self.shape.experts(layer)].tobytes())
            for layer in reversed(self.layers)
        }

    def same_work(self, other: CountedWork, layer: ExpertLayer) -> bool:
        """Returns whether ``other`` hosts the same experts of the layer and did as much work in each."""
        return self._expert_work[layer.name] == other._expert_work.get(layer.name)

    def shares(self, peers: Sequence[CountedWork]) -> FloatArray:
        """Returns the shares by row of the rank's tree.  ``peers`` counted in the other ranks of its tp group."""
        if self.tp == 1:
            return np.ones(len(self.data.tree))
        share = np.where(self.shape.own_work, 1.0, 1.0 / self.tp)
        share[self.sequence_parallel] = 1.0
        for layer in self.layers:
            alike = bool(peers) and all(self.same_work(peer, layer) for peer in peers)
            own = self.routes_own_tokens(layer) or self._is_cut(layer) or not alike
            share[self.shape.inside_experts(layer)] = 1.0 if own else 1.0 / self.tp
        return share

    def _is_cut(self, layer: ExpertLayer) -> bool:
        return not self.data.parameters.sliced_rows.isdisjoint(self.shape.experts(layer).tolist())
