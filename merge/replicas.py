"""Which work of a rank its tensor-parallel peers do as well: modules that tensor parallelism leaves whole.

By row of a rank's tree the share of its work that counts, 1 or 1 / tp:

- a module whose parameters are cut over tp does its own part of the work;
- one that has them whole does what its peers do, unless it saw a tp-th of the tokens that the cut ones saw (sequence
  parallel): rows = MACs / elements of its largest parameter;
- experts that the peers host as well do the same where each did as much on all of them, and the router saw all tokens;
- a module without parameters goes with those below it, a leaf with those of its parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from distprof.merge.parameters import ParameterSet
from distprof.merge.rankdata import RankData
from distprof.merge.tree import IntArray, RankTree
from distprof.merge.window import FloatArray, padded
from distprof.records import Counts, ExpertLayer

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Counted:
    """One rank and its counted step."""

    data: RankData
    counts: Counts

    @property
    def macs(self) -> IntArray:
        return padded(self.counts.forward_macs, len(self.data.tree))

    @property
    def flops(self) -> IntArray:
        return padded(self.counts.forward_flops, len(self.data.tree))

    def expert_rows(self, layer: ExpertLayer) -> list[int]:
        """Rows of the layer that own experts' parameters."""
        return sorted(self.data.parameters.expert_rows & self.data.tree.subtree(layer.row))

    def inside_experts(self, layer: ExpertLayer) -> list[int]:
        """Rows of the layer's experts, and of what holds nothing but them."""
        tree, own = self.data.tree, set(self.expert_rows(layer))
        others = self.data.parameters.largest.keys() - own
        found: set[int] = set()
        for expert in own:
            row = expert
            while row >= 0 and row not in found and others.isdisjoint(tree.subtree(row)):
                found |= tree.subtree(row)
                row = tree.rows[row].parent if row != layer.row else -1
        return sorted(found)

    def same_work(self, other: Counted, layer: ExpertLayer) -> bool:
        """Whether ``other`` hosts the same experts of the layer and did as much in each."""
        theirs = next((one for one in other.data.layers if one.name == layer.name), None)
        if theirs is None or theirs.local_experts != layer.local_experts:
            return False
        own, its = self.macs[self.expert_rows(layer)], other.macs[other.expert_rows(theirs)]
        return bool(np.array_equal(own, its))


def shares(one: Counted, peers: Sequence[Counted], tp: int) -> FloatArray:
    """By row of the rank's tree.  ``peers``: the other ranks of its tp group, those that counted."""
    tree = one.data.tree
    if tp == 1:
        return np.ones(len(tree))
    whole = _own_work(one, tp)
    share = np.where(whole, 1.0, 1.0 / tp)
    for layer in one.data.layers:
        _experts(share, one, peers, layer, tp)
    return share


def routes_own_tokens(one: Counted, layer: ExpertLayer, tp: int) -> bool:
    """Whether the layer's router saw a tp-th of the tokens: each rank of the tp group has others."""
    routers = one.data.parameters.router_rows & one.data.tree.subtree(layer.row)
    return tp > 1 and not routers.isdisjoint(_sequence_parallel(one.macs, one.data.parameters, tp))


def _own_work(one: Counted, tp: int) -> Flags:
    """By row: whether the work is the rank's own, experts left aside."""
    tree, parameters = one.data.tree, one.data.parameters
    cut = np.zeros(len(tree), np.int64)
    cut[[row for row in parameters.sliced_rows if row < len(tree)]] = 1
    has = np.zeros(len(tree), np.int64)
    has[[row for row in parameters.largest if row < len(tree)]] = 1
    own: Flags = np.where(has > 0, cut > 0, tree.inclusive(cut) > 0)
    _leaves(own, tree, tree.inclusive(has) > 0, tree.inclusive(cut) > 0)
    for row in _sequence_parallel(one.macs, parameters, tp):
        own[row] = True
    return own


def _leaves(own: Flags, tree: RankTree, below: Flags, cut_below: Flags) -> None:
    """Rows without parameters in them or below go with their parent's."""
    for row, spec in enumerate(tree.rows):
        if not below[row] and spec.parent >= 0:
            own[row] = cut_below[spec.parent] if below[spec.parent] else own[spec.parent]


def _sequence_parallel(macs: IntArray, parameters: ParameterSet, tp: int) -> list[int]:
    """Rows with whole parameters that saw about a tp-th of the tokens that the cut ones saw."""
    seen = {row: macs[row] / numel for row, numel in _matmuls(macs, parameters.largest).items()}
    cut = [tokens for row, tokens in seen.items() if row in parameters.sliced_rows - parameters.expert_rows]
    if not cut:
        return []
    reference, margin = float(np.median(cut)), sqrt(tp)
    return [
        row for row, tokens in seen.items()
        if row not in parameters.sliced_rows | parameters.expert_rows
        and margin <= reference / tokens <= tp * margin
    ]  # fmt: skip


def _matmuls(macs: IntArray, largest: Mapping[int, int]) -> dict[int, int]:
    return {row: numel for row, numel in largest.items() if row < len(macs) and macs[row] and numel}


def _experts(share: FloatArray, one: Counted, peers: Sequence[Counted], layer: ExpertLayer, tp: int) -> None:
    """Set the share of everything below the modules that hold the layer's experts."""
    rows = one.expert_rows(layer)
    if not rows:
        return
    routers = one.data.parameters.router_rows & one.data.tree.subtree(layer.row)
    split = any(share[row] == 1 for row in routers)
    cut = not one.data.parameters.sliced_rows.isdisjoint(rows)
    alike = bool(peers) and all(one.same_work(peer, layer) for peer in peers)
    for row in one.inside_experts(layer):
        share[row] = 1.0 / tp if alike and not split and not cut else 1.0
