"""Tokens against time, one point for each ep rank and MoE layer: tokens, a device, or both?

Points on the line differ by their tokens; a point above it belongs to a rank that is slow for its tokens.  The line and
the labels are those of the worst layer.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distprof.merge.arrays import BoolArray, FloatArray
from distprof.merge.plots import style
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.blocks.moe.findings import cause_words
from distprof.merge.text.blocks.moe.worst import worst_layer, worst_words

_LABELS_UP_TO = 32
#: The room of a label, as parts of the largest value of the axes.
_LABEL_WIDTH, _LABEL_HEIGHT = 0.035, 0.04
_SLOW = 1.0
_ROOM_FOR_LEGEND = 1.25


def draw(report: Report) -> Figure | None:
    """Returns the chart; None where the times of ep ranks are not known."""
    layers = [layer for layer in report.experts if _is_known(layer)]
    if not layers:
        return None
    worst = worst_layer(report) if worst_layer(report) in layers else layers[0]
    figure, axes = style.new_figure(6.4, 4.6)
    for layer in layers:
        if layer is not worst:
            style.rasterised(
                axes.plot(*_points(layer), "o", color=style.NOTHING, markersize=3, zorder=1)[0], len(layers) * 8
            )
    _fitted_line(axes, worst)
    _ranks(axes, worst)
    axes.set(xlabel="tokens of the ep rank in an iteration", ylabel="own time in the layer, ms")
    axes.set_xlim(left=0)
    axes.set_ylim(0, _ROOM_FOR_LEGEND * axes.get_ylim()[1])
    axes.grid()
    axes.legend(loc="upper left", fontsize=7.5)
    cause = cause_words(worst) or "neither tokens nor a device makes ep ranks differ"
    style.title(axes, "Tokens against time by ep rank", report, f"{worst_words(report)}; {cause}")
    return figure


def _is_known(layer: ExpertLayerStats) -> bool:
    return layer.tokens_or_device is not None and layer.steps > 0 and None not in layer.ep_tokens


def _points(layer: ExpertLayerStats) -> tuple[FloatArray, FloatArray]:
    """Returns tokens in an iteration and own times in ms, by ep rank."""
    tokens = style.to_array([layer.ep_tokens])[0] / layer.steps
    return tokens, style.to_array([layer.ep_own_ns])[0] / 1e6


def _fitted_line(axes: Axes, layer: ExpertLayerStats) -> None:
    found = layer.tokens_or_device
    assert found is not None
    tokens, _ = _points(layer)
    ends = np.array([0.0, float(tokens.max()) * 1.05])
    times = found.typical_ns / 1e6 * (found.fixed_share + (1 - found.fixed_share) * ends / tokens.mean())
    axes.plot(ends, times, color=style.FAINT, linewidth=1.0, label="what the tokens explain", zorder=2)


def _ranks(axes: Axes, layer: ExpertLayerStats) -> None:
    assert layer.tokens_or_device is not None
    tokens, times = _points(layer)
    slow = np.array(layer.tokens_or_device.slowness) > _SLOW
    for chosen, colour, label in (
        (~slow, style.BLUE, "ep ranks of the worst layer"),
        (slow, style.ORANGE, "slow for their tokens"),
    ):
        if chosen.any():
            axes.plot(tokens[chosen], times[chosen], "o", color=colour, markersize=6, label=label, zorder=3)
    if len(tokens) <= _LABELS_UP_TO:
        for rank in _apart(tokens, times, slow):
            place = float(tokens[rank]), float(times[rank])
            axes.annotate(str(rank), place, (5, 4), textcoords="offset points", fontsize=7.5)


def _apart(tokens: FloatArray, times: FloatArray, slow: BoolArray) -> list[int]:
    """Returns the ep ranks whose labels do not cover each other: slow ones first, then those with the most tokens."""
    chosen: list[int] = []
    for rank in np.lexsort((-tokens, ~slow)).tolist():
        away = (
            abs(tokens[rank] - tokens[other]) > _LABEL_WIDTH * tokens.max()
            or abs(times[rank] - times[other]) > _LABEL_HEIGHT * times.max()
            for other in chosen
        )
        if all(away):
            chosen.append(rank)
    return chosen
