"""The forward work of the whole model on the batch of one data-parallel replica, from what all ranks counted.

    executed = sum over the ranks / dp                       (of each model, where they lie on axes of their own)
    exact    = the same, with what tensor-parallel ranks do alike counted once (distprof.merge.job.tp_duplicates)
    useful   = exact, less what experts did on padding: of each MoE layer's expert work at most the share
               (tokens that its router saw x top-k) / (rows that its experts ran on)

What a rank's experts and routers did is found in distprof.merge.work.moe_flops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.job.counted_groups import CountedGroup
from distprof.merge.job.stages import Pipeline
from distprof.merge.job.tp_duplicates import CountedRank
from distprof.merge.load.rank import RankData
from distprof.merge.report import ModelWork
from distprof.merge.work.moe_flops import MoeWork, RankMoeWork
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


@computed_once
def work_sums(analysis: Analysis) -> list[WorkSums]:
    """Returns the sums of each group of models on the same axes."""
    return [_group_sums(group) for group in analysis.counted_groups]


def _group_sums(part: CountedGroup) -> WorkSums:
    layout, counted = part.layout, part.ranks
    sums = WorkSums(layout.info.sizes["dp"], len(counted))
    hosted: dict[tuple[object, ...], tuple[RankMoeWork, list[_Layer]]] = {}  # ranks that host the same share one
    for rank, one in counted.items():
        share = part.shares[rank]
        _add(sums, one, share)
        pipeline = part.pipelines[rank]
        alike = one.shape, pipeline, one.layers
        if alike not in hosted:
            keys = [layer_key(one.data, layer, pipeline) for layer in one.layers]
            own = [sums.layers.setdefault(key, _Layer()) for key in keys]
            hosted[alike] = RankMoeWork(one.shape, one.data.parameters, one.layers), own
        _add_layers(hosted[alike][1], one.layers, hosted[alike][0].done(one, share))
    return sums


def layer_key(data: RankData, layer: ExpertLayer, pipeline: Pipeline) -> LayerKey:
    """Tells MoE layers apart; models and pipeline stages may have layers of one name."""
    return layer.name, *pipeline.place(data.tree.rows[layer.row].root)


def experts_per_token(analysis: Analysis) -> dict[LayerKey, float]:
    """Returns by layer the rows of experts / tokens of the router, as measured; no layer where a rank did not count."""
    complete = (sums for sums in work_sums(analysis) if sums.ranks == analysis.run.world_size)
    layers = (item for sums in complete for item in sums.layers.items())
    return {key: layer.rows / layer.tokens for key, layer in layers if layer.rows and layer.tokens}


def model_work(analysis: Analysis) -> ModelWork | None:
    """Returns None where no rank counted.  The figures are lower bounds where one did not."""
    parts = work_sums(analysis)
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
        covers_all=all(sums.ranks == analysis.run.world_size for sums in parts),
    )


def _add(sums: WorkSums, one: CountedRank, share: FloatArray) -> None:
    macs, flops, outside = one.macs, one.flops, one.outside
    outside_macs, outside_flops = outside.get("forward_macs", 0), outside.get("forward_flops", 0)
    sums.executed_macs += float(macs.sum()) + outside_macs
    sums.executed_flops += float(flops.sum()) + outside_flops
    sums.macs += float((macs * share).sum()) + outside_macs / one.tp
    sums.flops += float((flops * share).sum()) + outside_flops / one.tp


def _add_layers(sums: Sequence[_Layer], layers: Sequence[ExpertLayer], done: MoeWork) -> None:
    columns = (done.macs.tolist(), done.flops.tolist(), done.rows.tolist(), done.tokens.tolist())
    for layer, hosted, macs, flops, rows, tokens in zip(sums, layers, *columns, strict=True):
        layer.macs += macs
        layer.flops += flops
        layer.rows += rows
        layer.tokens += tokens
        layer.wanted += tokens * hosted.top_k
        layer.known = layer.known and tokens > 0 and hosted.top_k > 0
