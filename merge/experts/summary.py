"""All MoE layers together: the spread of their loads, and what equal loads would save."""

from __future__ import annotations

from collections.abc import Sequence

from distprof.merge.analysis import Analysis
from distprof.merge.experts.load import expert_layers
from distprof.merge.report import (
    ONLY_DEVICE,
    ONLY_TOKENS,
    TOKENS_AND_DEVICE,
    ExpertLayerStats,
    ExpertSummary,
    OverLayers,
)
from distprof.merge.stats import quantile
from distprof.merge.times.summary import profile_summary

#: Loads clearly differ from this difference of their max/mean on.
_CLEARLY = 0.1
#: Fewer empty rows come from rounding up to a few rows.
_LEAST_EMPTY = 0.01


def expert_summary(analysis: Analysis) -> ExpertSummary | None:
    """Returns the summary, None where the model has no MoE layers."""
    iterations = profile_summary(analysis).iterations
    return summarise(expert_layers(analysis), iterations.median_ns if iterations is not None else None)


def summarise(layers: Sequence[ExpertLayerStats], iteration_ns: float | None) -> ExpertSummary | None:
    """Returns the summary of these layers; ``iteration_ns`` is the median iteration."""
    if not layers:
        return None
    costs = [layer.load_cost_ns for layer in layers if layer.load_cost_ns is not None]
    padding = [one.counted.padding_share for one in layers if one.counted is not None]
    known_padding = [share for share in padding if share is not None]
    empty = [one.empty for one in layers if one.empty is not None]
    empty_costs = [one.cost_ns for one in empty if one.cost_ns is not None]
    rows = sum(one.rows for one in empty)
    empty_share = sum(one.rows * one.share for one in empty) / rows if rows else None
    cost_ns = sum(costs) if len(costs) == len(layers) else None
    return ExpertSummary(
        layers=sum(layer.load is not None for layer in layers),
        max_over_mean=_over_layers([(one.max_over_mean, one) for one in layers]),
        ep_max_over_mean=_over_layers([(one.ep_max_over_mean, one) for one in layers]),
        cost_ns=cost_ns,
        cost_share=cost_ns / iteration_ns if cost_ns is not None and iteration_ns else None,
        worst_first=tuple(sorted(range(len(layers)), key=lambda place: _badness(layers[place]), reverse=True)),
        better_placed=_largest([_gain(layer) for layer in layers]),
        unequal_micro_batches=_largest([_hidden(layer) for layer in layers]),
        unequal_tokens=_labels(layers, ONLY_TOKENS),
        slow_devices=_labels(layers, ONLY_DEVICE),
        padding_share=sum(known_padding) / len(known_padding) if known_padding else None,
        empty_share=empty_share,
        has_empty_slots=empty_share is not None and empty_share >= _LEAST_EMPTY,
        empty_cost_ns=sum(empty_costs) if empty_costs else None,
        ep_starts=layers[0].ep_starts if len({layer.ep_starts for layer in layers}) == 1 else (),
        cv=_over_layers([(one.load.cv if one.load else None, one) for one in layers]),
        entropy=_over_layers([(one.load.entropy if one.load else None, one) for one in layers], smallest=True),
        gini=_over_layers([(one.load.gini if one.load else None, one) for one in layers]),
        drop_rate=_over_layers([(one.drop_rate, one) for one in layers]),
    )


def _badness(layer: ExpertLayerStats) -> tuple[float, float, float]:
    return layer.ep_cost_ns or 0, layer.ep_max_over_mean or 0, layer.max_over_mean or 0


def _largest(differences: Sequence[float]) -> tuple[int, ...]:
    """Returns the places of the clear differences, the largest first."""
    places = (place for place, difference in enumerate(differences) if difference >= _CLEARLY)
    return tuple(sorted(places, key=lambda place: -differences[place]))


def _gain(layer: ExpertLayerStats) -> float:
    """Returns by how much max/mean of the ep ranks falls with another placement."""
    found = layer.placement
    return 0.0 if found is None else found.max_over_mean_now - found.max_over_mean


def _hidden(layer: ExpertLayerStats) -> float:
    """Returns by how much max/mean in the median micro-batch exceeds that of the sums over steps."""
    one, steps = layer.micro_batches, layer.over_steps
    known = [value + 1 for value in steps.max_violation if value is not None] if steps is not None else []
    if one is None or not known:
        return 0.0
    of_experts = one.max_over_mean - sorted(known)[len(known) // 2]
    is_distributed = one.ep_max_over_mean is not None and layer.ep_max_over_mean is not None
    of_ep = (one.ep_max_over_mean or 0) - (layer.ep_max_over_mean or 0) if is_distributed else 0.0
    return max(of_experts, of_ep)


def _labels(layers: Sequence[ExpertLayerStats], cause: str) -> tuple[str, ...]:
    """Returns the labels of the layers in which ``cause`` has a part, the costliest first."""
    found = [
        layer
        for layer in layers
        if layer.tokens_or_device is not None and layer.tokens_or_device.cause in (cause, TOKENS_AND_DEVICE)
    ]
    return tuple(layer.name for layer in sorted(found, key=lambda layer: -(layer.ep_cost_ns or 0)))


def _over_layers(
    values: Sequence[tuple[float | None, ExpertLayerStats]], *, smallest: bool = False
) -> OverLayers | None:
    """Returns a measure over the layers; with ``smallest``, that is the worst."""
    known = [(value, layer) for value, layer in values if value is not None]
    if not known:
        return None
    numbers = [value for value, _ in known]
    worst, layer = (min if smallest else max)(known, key=lambda pair: pair[0])
    p50, p95 = quantile(numbers, 0.5), quantile(numbers, 0.05 if smallest else 0.95)
    return OverLayers(p50=p50, p95=p95, worst=worst, worst_layer=layer.name)
