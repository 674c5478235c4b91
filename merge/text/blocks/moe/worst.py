"""Names the worst MoE layer beside plots and parts of the page: its expert, its ep rank and its cost."""

from __future__ import annotations

from distprof.merge.quantities import NOT_AVAILABLE, duration
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
    if layer.ep_load is not None or layer.ep_cost_ns is not None:
        parts.append(_cost(layer))
    return ", ".join(parts)


def _cost(layer: ExpertLayerStats) -> str:
    """Returns what unequal ep ranks cost, and the slowest of them where that is not the one with the most tokens."""
    if layer.ep_cost_ns is None:
        return f"cost {NOT_AVAILABLE}"
    known = [own for own in layer.ep_own_ns if own is not None]
    slowest = layer.ep_own_ns.index(max(known)) if known else None
    largest = layer.ep_load.hottest if layer.ep_load is not None else None
    by = f" by ep rank {slowest}" if slowest not in (None, largest) else ""
    return f"cost {duration(layer.ep_cost_ns)}{by}"


def worst_sentence(report: Report) -> str:
    """Returns the same as a sentence."""
    words = worst_words(report)
    return f"{words[0].upper()}{words[1:]}."
