"""The forward work of the whole model on the batch of one data-parallel replica, from what all ranks counted.

    executed = sum over the ranks / dp            (for each model separately, where models have axes of their own)
    exact    = the same, but work that tensor-parallel ranks repeat counts once (distprof.merge.job.tp_duplicates)
    useful   = exact, without the work of experts on padding: of the expert work of each MoE layer at most the share
               (choices that its router kept, else the tokens that it saw x top-k) / (rows that its experts ran on)

distprof.merge.work.moe_flops has the work of experts and routers on one rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray
from distprof.merge.job.counted_groups import CountedGroup
from distprof.merge.job.stages import Pipeline
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.merge.report import ModelWork
from distprof.merge.work.moe_flops import MoeWork, RankMoeWork
from distprof.records import ExpertLayer

LayerKey = tuple[str, int, int]  # name, model, pipeline stage
_Kept = tuple[int | None, ...]  # by layer, the choices that its router kept in the counted iteration

#: Rows are quotients of large numbers; smaller differences than this share are rounding errors, not padding.
_ROUNDING = 1e-6


@dataclass
class _Layer:
    """The work of a MoE layer, summed over the ranks that host it; repeated work counts once."""

    macs: float = 0.0  # of its experts
    flops: float = 0.0  # of its experts
    rows: float = 0.0  # rows that its experts ran on
    tokens: float = 0.0  # tokens that its router saw
    wanted: float = 0.0  # choices that routers kept; where that is not known, these tokens times top-k
    known: bool = True

    @property
    def padding(self) -> float:
        """The least share of the experts' work that is padding."""
        excess = 1 - self.wanted / self.rows if self.rows else 0.0
        return excess if excess > _ROUNDING else 0.0


@dataclass
class WorkSums:
    """Sums over the ranks that counted, for models on the same axes, of which there are ``dp`` replicas."""

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
    return [_group_sums(group, analysis.windows) for group in analysis.counted_groups]


def _group_sums(part: CountedGroup, windows: Mapping[int, Window]) -> WorkSums:
    sums = WorkSums(part.layout.info.sizes["dp"], len(part.ranks))
    hosted: dict[tuple[object, ...], tuple[RankMoeWork, list[_Layer]]] = {}  # ranks with the same layers share an entry
    for (one, _, pipeline, kept), ranks in _alike(part, windows).items():
        share = part.shares[ranks[0]]
        _add(sums, one, share, len(ranks))
        same = one.shape, pipeline, id(one.data.layers)
        if same not in hosted:
            keys = [layer_key(one.data, layer, pipeline) for layer in one.layers]
            own = [sums.layers.setdefault(key, _Layer()) for key in keys]
            hosted[same] = RankMoeWork(one.shape, one.data.parameters, one.layers), own
        moe, layers = hosted[same]
        _add_layers(layers, one.layers, moe.compute(one, share), kept, len(ranks))
    return sums


def _alike(
    part: CountedGroup, windows: Mapping[int, Window]
) -> dict[tuple[CountedWork, int, Pipeline, _Kept], list[int]]:
    """Returns the ranks that did the same work, of which the same counts, and whose routers kept as many choices."""
    found: dict[tuple[CountedWork, int, Pipeline, _Kept], list[int]] = {}
    for rank, one in part.ranks.items():
        key = one, id(part.shares[rank]), part.pipelines[rank], _kept_choices(one, windows.get(rank))
        found.setdefault(key, []).append(rank)
    return found


def layer_key(data: RankData, layer: ExpertLayer, pipeline: Pipeline) -> LayerKey:
    """Returns a key that is unique for each MoE layer: models and pipeline stages may have layers of the same name."""
    return layer.name, *pipeline.place(data.tree.rows[layer.row].root)


class LayerShare(NamedTuple):
    """The work of the experts of one MoE layer."""

    rows: float  # that they ran on in the counted step; repeated work counts once
    padding: float  # the least share of these that is padding


@computed_once
def layer_shares(analysis: Analysis) -> dict[LayerKey, LayerShare]:
    """Returns the rows of experts by layer; no layer where a rank did not count, or its choices are not known."""
    complete = (sums for sums in work_sums(analysis) if sums.ranks == analysis.run.world_size)
    layers = (item for sums in complete for item in sums.layers.items())
    return {key: LayerShare(layer.rows, layer.padding) for key, layer in layers if layer.rows and layer.known}


def experts_per_token(analysis: Analysis) -> dict[LayerKey, float]:
    """Returns the measured rows of experts / tokens of the router, by layer.

    No layer where a rank did not count, where some of the rows are padding, or where the layer itself has the weights:
    its products may be the dispatch of tokens, too.
    """
    complete = (sums for sums in work_sums(analysis) if sums.ranks == analysis.run.world_size)
    layers = (item for sums in complete for item in sums.layers.items())
    found = {key: layer.rows / layer.tokens for key, layer in layers if layer.rows and layer.tokens}
    unclear = {*_padded_layers(analysis), *_layers_with_own_weights(analysis)}
    return {key: rows for key, rows in found.items() if key not in unclear}


def _layers_with_own_weights(analysis: Analysis) -> Iterator[LayerKey]:
    for data in analysis.ranks:
        own = (layer for layer in data.layers if layer.row in data.parameters.expert_rows)
        yield from (layer_key(data, layer, analysis.pipelines[data.rank]) for layer in own)


def _padded_layers(analysis: Analysis) -> Iterator[LayerKey]:
    """Yields the layers whose experts all got as many rows on a rank, but not as many tokens.

    A rank that sees equal rows in its first timed step leaves rows of zeros out of the later ones.
    """
    for data in analysis.ranks:
        window = analysis.windows.get(data.rank)
        if window is None or window.loads is None or not any(window.unseen):
            continue
        start = 0
        for number, layer in enumerate(data.layers):
            end = start + len(layer.local_experts) * layer.counted
            seen = [at for at, unseen in enumerate(window.unseen) if number not in unseen]
            loads = window.loads[seen, start:end]
            if number in window.unseen[0] and loads.size and (loads != loads[:, :1]).any():
                yield layer_key(data, layer, analysis.pipelines[data.rank])
            start = end


def model_work(analysis: Analysis) -> ModelWork | None:
    """Returns the work of the model, lower bounds where some ranks did not count; None where no rank counted."""
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


def _add(sums: WorkSums, one: CountedWork, share: FloatArray, ranks: int) -> None:
    macs, flops, outside = one.macs, one.flops, one.outside
    outside_macs, outside_flops = outside.get("forward_macs", 0), outside.get("forward_flops", 0)
    sums.executed_macs += ranks * (float(macs.sum()) + outside_macs)
    sums.executed_flops += ranks * (float(flops.sum()) + outside_flops)
    sums.macs += ranks * (float((macs * share).sum()) + outside_macs / one.tp)
    sums.flops += ranks * (float((flops * share).sum()) + outside_flops / one.tp)


def _kept_choices(one: CountedWork, window: Window | None) -> _Kept:
    """Returns for each layer how many choices its router kept in the counted iteration; None where that is unknown."""
    routing = window.counted_routing if window is not None else None
    if routing is None:
        return (None,) * len(one.layers)
    rows = {row.layer: row for row in routing.layers if row.drops_known}
    kept = {number: int(row.routed.sum()) - int(row.dropped.sum()) for number, row in rows.items()}
    return tuple(kept.get(number) for number, layer in enumerate(one.data.layers) if layer in one.layers)


def _add_layers(sums: Sequence[_Layer], layers: Sequence[ExpertLayer], work: MoeWork, kept: _Kept, ranks: int) -> None:
    columns = (work.macs.tolist(), work.flops.tolist(), work.rows.tolist(), work.tokens.tolist(), work.router.tolist())
    for layer, hosted, macs, flops, rows, tokens, router, own in zip(sums, layers, *columns, kept, strict=True):
        layer.macs += ranks * macs
        layer.flops += ranks * flops
        layer.rows += ranks * rows
        layer.tokens += ranks * tokens
        layer.wanted += ranks * (tokens * hosted.top_k if own is None else own * router)
        layer.known = layer.known and (own is not None or (tokens > 0 and hosted.top_k > 0))
