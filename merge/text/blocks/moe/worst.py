"""Names the worst MoE layer beside plots and parts of the page: its expert, its ep rank and its cost."""

from __future__ import annotations

from distprof.merge.quantities import duration
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.format.lines import one_line
from distprof.merge.text.format.shortening import shortened

_NAME_LENGTH = 30


def worst_layer(report: Report) -> ExpertLayerStats:
    """Returns the worst layer of a report that has MoE layers."""
    return report.experts[report.expert_summary.worst_first[0] if report.expert_summary is not None else 0]


def worst_words(report: Report) -> str:
    """Returns the worst layer in words, with what is known of it."""
    layer = worst_layer(report)
    parts = [f"worst: {shortened(one_line(layer.name), _NAME_LENGTH)}"]
    if layer.load is not None:
        parts.append(f"expert {layer.load.hottest} with {layer.load.max_over_mean:.2f} x the mean")
    if layer.ep_load is not None:
        parts.append(f"ep rank {layer.ep_load.hottest} with {layer.ep_load.max_over_mean:.2f} x")
    if layer.ep_cost_ns is not None:
        parts.append(f"cost {duration(layer.ep_cost_ns)}")
    return ", ".join(parts)


def worst_sentence(report: Report) -> str:
    """Returns the same as a sentence."""
    words = worst_words(report)
    return f"{words[0].upper()}{words[1:]}."
