"""A map of layers x ep ranks: the tokens of all experts of an ep rank, relative to the mean of its layer.

A layer waits for its ep rank with the most tokens, so this map has what costs time, and that of the experts why.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.blocks.moe.worst import worst_layer, worst_words

_VALUES_UP_TO = 96
_LEAST_SPAN = 0.25  # of the colours, on either side of the mean
#: Colours below the mean span this many times more load than those above it: hot ranks are what costs time.
_COLD_PALER = 2.0


def draw(report: Report) -> Figure | None:
    """Returns the map; None where no layer distributes its experts, or no tokens are known."""
    layers = [layer for layer in report.experts if any(layer.ep_tokens)]
    if not layers:
        return None
    widest = max(len(layer.ep_tokens) for layer in layers)
    loads = style.to_array([[*_relative(layer), *[None] * (widest - len(layer.ep_tokens))] for layer in layers])
    figure, axes = style.new_figure(min(12.0, max(6.0, 3.4 + 0.42 * widest)), min(9.0, 2.2 + 0.34 * len(layers)))
    span = max(_LEAST_SPAN, float(np.nanmax(np.abs(loads - 1))))
    limits = TwoSlopeNorm(1.0, 1 - _COLD_PALER * span, 1 + span)
    bar = style.heat_map(figure, axes, loads, ("PuOr_r", limits), "tokens / layer's mean")
    bar.ax.set_ylim(max(0.0, 1 - span), 1 + span)
    if loads.size <= _VALUES_UP_TO:
        for (row, column), value in np.ndenumerate(loads):
            if not np.isnan(value):
                dark = abs(float(limits(float(value))) - 0.5) > style.READABLE
                colour = "white" if dark else style.INK
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
    style.rank_ticks(axes.xaxis, range(widest))
    style.layer_ticks(axes, [layer.name for layer in layers])
    axes.set(xlabel="ep rank", ylabel="layer")
    style.title(axes, "Load of ep ranks", report, _finding(report, layers))
    return figure


def _relative(layer: ExpertLayerStats) -> list[float | None]:
    known = [tokens for tokens in layer.ep_tokens if tokens is not None]
    mean = sum(known) / len(known)
    return [None if tokens is None else tokens / mean for tokens in layer.ep_tokens]


def _finding(report: Report, layers: list[ExpertLayerStats]) -> str:
    """Names the worst layer, the most unequal one where that is another, and what equal loads would save in this."""
    unequal = max(layers, key=lambda layer: layer.ep_max_over_mean or 0)
    parts = [worst_words(report)]
    if unequal.ep_load is not None and unequal is not worst_layer(report):
        load = f"ep rank {unequal.ep_load.hottest} with {unequal.ep_load.max_over_mean:.2f} x the mean"
        parts.append(f"most unequal: {style.short([unequal.name])[0]}, {load}")
    if unequal.load_cost_ns:
        parts.append(f"equal loads would save up to {unequal.load_cost_ns / 1e6:.1f} ms of an iteration there")
    return "; ".join(parts)
