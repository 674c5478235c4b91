"""The forward work of the whole model on the batch of one data-parallel replica, from what all ranks counted.

    executed = sum over the ranks / dp                       (of each model, where they lie on axes of their own)
    exact    = the same, with what tensor-parallel ranks do alike counted once (distprof.merge.replicas)
    useful   = exact, less what experts did on padding: of each MoE layer's expert work at most the share
               (tokens that its router saw x top-k) / (rows that its experts ran on)

Rows are MACs / elements of the matrix: of a router's its largest parameter (some do not call the module that owns it:
the MACs are then its parent's), of an expert's all its matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distprof.merge.rankdata import RankData
from distprof.merge.replicas import Counted, Part
from distprof.merge.report import ModelWork
from distprof.merge.stages import pipeline_of
from distprof.merge.topology import Layout
from distprof.merge.window import FloatArray
from distprof.records import ExpertLayer

LayerKey = tuple[str, int, int]  # name, model, pipeline stage

#: Rows are quotients of large numbers; what differs by less than this is no padding.
_ROUNDING = 1e-6


@dataclass
class _Layer:
    """Sums over the ranks that host a MoE layer, of unique work."""

    macs: float = 0.0  # of its experts
    flops: float = 0.0
    rows: float = 0.0  # that its experts ran on
    tokens: float = 0.0  # that its router saw
    wanted: float = 0.0  # the same, times top-k
    known: bool = True

    @property
    def padding(self) -> float:
        """The share of the experts' work that is padding, at least."""
        excess = 1 - self.wanted / self.rows if self.rows else 0.0
        return excess if excess > _ROUNDING else 0.0


@dataclass
class WorkSums:
    """Over the ranks that counted, of models on the same axes; ``dp`` of their replicas."""

    dp: int
    ranks: int = 0
    executed_macs: float = 0.0
    executed_flops: float = 0.0
    macs: float = 0.0
    flops: float = 0.0
    layers: dict[LayerKey, _Layer] = field(default_factory=dict)

    @property
    def padding_macs(self) -> float:
        return sum(layer.macs * layer.padding for layer in self.layers.values())

    @property
    def padding_flops(self) -> float:
        return sum(layer.flops * layer.padding for layer in self.layers.values())


def work_sums(part: Part) -> WorkSums:
    layout, counted = part.layout, part.ranks
    sums = WorkSums(layout.info.sizes["dp"], len(counted))
    peers = tensor_peers(layout, list(counted))
    for rank, one in counted.items():
        share = one.shares([counted[peer] for peer in peers[rank] if peer != rank])
        _add(sums, one, share)
        for layer in one.layers:
            _add_layer(sums.layers.setdefault(layer_key(one.data, layer, layout), _Layer()), one, layer, share)
    return sums


def layer_key(data: RankData, layer: ExpertLayer, layout: Layout) -> LayerKey:
    """Tells MoE layers apart; models and pipeline stages may have layers of one name."""
    model, stage = pipeline_of(data, layout).place(data.tree.rows[layer.row].root)
    return layer.name, model, stage


def experts_per_token(parts: Iterable[WorkSums], world_size: int) -> dict[LayerKey, float]:
    """As it was measured, rows of experts / tokens of the router; of no layer where a rank did not count."""
    layers = (item for sums in parts if sums.ranks == world_size for item in sums.layers.items())
    return {key: layer.rows / layer.tokens for key, layer in layers if layer.rows and layer.tokens}


def model_work(parts: Sequence[WorkSums], world_size: int) -> ModelWork | None:
    """None where no rank counted.  Lower bounds where one did not."""
    if not any(sums.ranks for sums in parts):
        return None
    known = all(layer.known for sums in parts for layer in sums.layers.values())
    return ModelWork(
        macs=sum(sums.macs / sums.dp for sums in parts),
        flops=sum(sums.flops / sums.dp for sums in parts),
        executed_macs=sum(sums.executed_macs / sums.dp for sums in parts),
        executed_flops=sum(sums.executed_flops / sums.dp for sums in parts),
        useful_macs=sum((sums.macs - sums.padding_macs) / sums.dp for sums in parts) if known else None,
        useful_flops=sum((sums.flops - sums.padding_flops) / sums.dp for sums in parts) if known else None,
        covers_all=all(sums.ranks == world_size for sums in parts),
    )


def tensor_peers(layout: Layout, ranks: Sequence[int]) -> dict[int, list[int]]:
    """By rank: the ranks of its tp group, itself included."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank in ranks:
        groups.setdefault(layout.piece(rank, ("dp", "cp", "pp")), []).append(rank)
    return {rank: members for members in groups.values() for rank in members}


def _add(sums: WorkSums, one: Counted, share: FloatArray) -> None:
    macs, flops, outside = one.macs, one.flops, one.outside
    outside_macs, outside_flops = outside.get("forward_macs", 0), outside.get("forward_flops", 0)
    sums.executed_macs += float(macs.sum()) + outside_macs
    sums.executed_flops += float(flops.sum()) + outside_flops
    sums.macs += float((macs * share).sum()) + outside_macs / one.tp
    sums.flops += float((flops * share).sum()) + outside_flops / one.tp


def _add_layer(layer: _Layer, one: Counted, hosted: ExpertLayer, share: FloatArray) -> None:
    rows = one.shape.inside_experts(hosted)
    layer.macs += float((one.macs[rows] * share[rows]).sum())
    layer.flops += float((one.flops[rows] * share[rows]).sum())
    layer.rows += _rows_run(one, hosted, share)
    seen = _tokens_routed(one, hosted, share)
    layer.known = layer.known and seen > 0 and hosted.top_k > 0
    layer.tokens += seen
    layer.wanted += seen * hosted.top_k


def _rows_run(one: Counted, hosted: ExpertLayer, share: FloatArray) -> float:
    """Of all the rank's experts of the layer together; where tensor parallelism cuts them, its part of these rows."""
    matrices, rows = one.data.parameters.matrices, one.shape.experts(hosted)
    own, whole = (sum(matrices[row][part] for row in rows.tolist() if row in matrices) for part in (0, 1))
    macs = float((one.macs[rows] * share[rows]).sum())
    return macs * len(hosted.local_experts) / whole if own else 0.0


def _tokens_routed(one: Counted, hosted: ExpertLayer, share: FloatArray) -> float:
    """0 where no router was seen.  Whole tokens: what else a router multiplies is little."""
    rows, elements = one.shape.routers(hosted), one.shape.router_elements(hosted)
    return int(one.macs[rows].sum()) // elements * float(share[rows].max()) if elements else 0.0
