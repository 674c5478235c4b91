"""All MoE layers together: the spread of their loads, and what equal loads would save."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.experts.load import expert_layers
from distprof.merge.report import ExpertLayerStats, ExpertSummary, OverLayers
from distprof.merge.times.summary import profile_summary

_MOST_OF_IT = 0.5


def expert_summary(analysis: Analysis) -> ExpertSummary | None:
    """Returns the summary, None where the model has no MoE layers."""
    iterations = profile_summary(analysis).iterations
    return summarise(expert_layers(analysis), iterations.median_ns if iterations is not None else None)


def summarise(layers: Sequence[ExpertLayerStats], iteration_ns: float | None) -> ExpertSummary | None:
    """Returns the summary of these layers; ``iteration_ns`` is the median iteration."""
    if not layers:
        return None
    costs = [layer.load_cost_ns for layer in layers if layer.load_cost_ns is not None]
    cost_ns = sum(costs) if len(costs) == len(layers) else None
    return ExpertSummary(
        layers=sum(layer.load is not None for layer in layers),
        max_over_mean=_over_layers([(one.max_over_mean, one) for one in layers]),
        ep_max_over_mean=_over_layers([(one.ep_max_over_mean, one) for one in layers]),
        cost_ns=cost_ns,
        cost_share=cost_ns / iteration_ns if cost_ns is not None and iteration_ns else None,
        slow_otherwise=tuple(layer.name for layer in layers if _is_slow_otherwise(layer)),
    )


def _is_slow_otherwise(layer: ExpertLayerStats) -> bool:
    """Whether something else than loads makes most of the cost."""
    cost, of_loads = layer.ep_cost_ns, layer.load_cost_ns
    return cost is not None and of_loads is not None and of_loads < _MOST_OF_IT * cost


def _over_layers(values: Sequence[tuple[float | None, ExpertLayerStats]]) -> OverLayers | None:
    known = [(value, layer) for value, layer in values if value is not None]
    if not known:
        return None
    numbers = np.array([value for value, _ in known])
    worst, layer = max(known, key=lambda pair: pair[0])
    p50, p95 = np.percentile(numbers, (50, 95)).tolist()
    return OverLayers(p50=p50, p95=p95, worst=worst, worst_layer=layer.name)
