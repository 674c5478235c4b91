"""The forward work of the whole model on the batch of one data-parallel replica, from what all ranks counted.

    executed = sum over the ranks / dp
    exact    = the same, with what tensor-parallel ranks do alike counted once (distprof.merge.replicas)
    useful   = exact, less what experts did on padding: of each MoE layer's expert work at most the share
               (tokens that its router saw x top-k) / (rows that its experts ran on)

Rows are MACs / elements of the matrix: of a router's its largest parameter, of an expert's all its matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from distprof.merge.load import LoadedRun
from distprof.merge.replicas import Counted, shares
from distprof.merge.report import ModelWork
from distprof.merge.topology import Layout
from distprof.merge.window import FloatArray
from distprof.records import ExpertLayer

#: Rows are quotients of large numbers; what differs by less than this is no padding.
_ROUNDING = 1e-6


@dataclass
class _Layer:
    """Sums over the ranks that host a MoE layer, of unique work."""

    macs: float = 0.0  # of its experts
    flops: float = 0.0
    rows: float = 0.0  # that its experts ran on
    wanted: float = 0.0  # tokens that its router saw, times top-k
    known: bool = True

    @property
    def padding(self) -> float:
        """The share of the experts' work that is padding, at least."""
        excess = 1 - self.wanted / self.rows if self.rows else 0.0
        return excess if excess > _ROUNDING else 0.0


@dataclass
class _Sums:
    executed_macs: float = 0.0
    executed_flops: float = 0.0
    macs: float = 0.0
    flops: float = 0.0
    layers: dict[tuple[object, ...], _Layer] = field(default_factory=dict)


def model_work(run: LoadedRun, layout: Layout) -> ModelWork | None:
    """None where no rank counted.  Lower bounds where a rank did not."""
    windows = ((data, data.windows.get(run.mode)) for data in run.ranks)
    counted = {data.rank: Counted(data, w.counts) for data, w in windows if w and w.counts is not None}
    if not counted:
        return None
    sums, sizes = _Sums(), layout.info.sizes
    peers = _tensor_peers(layout, list(counted))
    for rank, one in counted.items():
        share = shares(one, [counted[peer] for peer in peers[rank] if peer != rank], sizes["tp"])
        _add(sums, one, share, sizes["tp"])
        for layer in one.data.layers:
            key = (layer.name, *layout.piece(rank, ("pp",)))
            _add_layer(sums.layers.setdefault(key, _Layer()), one, layer, share)
    known = all(layer.known for layer in sums.layers.values())
    lost_macs = sum(layer.macs * layer.padding for layer in sums.layers.values())
    lost_flops = sum(layer.flops * layer.padding for layer in sums.layers.values())
    dp = sizes["dp"]
    return ModelWork(
        macs=sums.macs / dp,
        flops=sums.flops / dp,
        executed_macs=sums.executed_macs / dp,
        executed_flops=sums.executed_flops / dp,
        useful_macs=(sums.macs - lost_macs) / dp if known else None,
        useful_flops=(sums.flops - lost_flops) / dp if known else None,
        covers_all=len(counted) == run.world_size,
    )


def _tensor_peers(layout: Layout, ranks: Sequence[int]) -> dict[int, list[int]]:
    """By rank: the ranks of its tp group, itself included."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank in ranks:
        groups.setdefault(layout.piece(rank, ("dp", "cp", "pp")), []).append(rank)
    return {rank: members for members in groups.values() for rank in members}


def _add(sums: _Sums, one: Counted, share: FloatArray, tp: int) -> None:
    macs, flops, outside = one.macs, one.flops, one.counts.outside
    outside_macs, outside_flops = outside.get("forward_macs", 0), outside.get("forward_flops", 0)
    sums.executed_macs += float(macs.sum()) + outside_macs
    sums.executed_flops += float(flops.sum()) + outside_flops
    sums.macs += float((macs * share).sum()) + outside_macs / tp
    sums.flops += float((flops * share).sum()) + outside_flops / tp


def _add_layer(layer: _Layer, one: Counted, hosted: ExpertLayer, share: FloatArray) -> None:
    rows = one.inside_experts(hosted)
    layer.macs += float((one.macs[rows] * share[rows]).sum())
    layer.flops += float((one.flops[rows] * share[rows]).sum())
    layer.rows += _rows_run(one, hosted, share)
    seen = list(_tokens_routed(one, hosted, share))
    layer.known = layer.known and bool(seen) and hosted.top_k > 0
    layer.wanted += max(seen, default=0.0) * hosted.top_k


def _rows_run(one: Counted, hosted: ExpertLayer, share: FloatArray) -> float:
    """Of all the rank's experts of the layer together."""
    rows = [row for row in one.expert_rows(hosted) if row in one.data.parameters.matrices]
    elements = sum(one.data.parameters.matrices[row] for row in rows)
    macs = float((one.macs[rows] * share[rows]).sum())
    cut = _cut(one, rows)
    return macs * len(hosted.local_experts) / elements / cut if elements else 0.0


def _cut(one: Counted, rows: Sequence[int]) -> float:
    """Over how many ranks tensor parallelism cuts the experts: each of them runs the same rows."""
    pieces = [p for p in one.data.parameters.counted if p.row in rows and p.rank_numel]
    whole, own = sum(p.global_numel for p in pieces), sum(p.rank_numel for p in pieces)
    return whole / own if own else 1.0


def _tokens_routed(one: Counted, hosted: ExpertLayer, share: FloatArray) -> Iterator[float]:
    parameters = one.data.parameters
    for row in parameters.router_rows & one.data.tree.subtree(hosted.row):
        if one.macs[row]:
            yield float(one.macs[row] * share[row]) / parameters.largest[row]
