"""The balance of the MoE layers from step to step: MaxVio and normalised entropy, median, 95th percentile and worst."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.plots.experts.layer_steps import FEWEST_STEPS, layers_over_steps, table_over_steps
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.blocks.moe.worst import worst_words

_ROOM_FOR_LEGEND = 1.45


def draw(report: Report) -> Figure | None:
    """Returns the two charts; None where the loads of fewer than two steps are known."""
    layers, steps = layers_over_steps(report)
    if len(steps) < FEWEST_STEPS:
        return None
    figure, axes = style.new_panels(7.0, 5.0, 2)
    violation, entropy = (table_over_steps(layers, steps, measure) for measure in ("max_violation", "entropy"))
    _chart(axes[0], steps, violation, style.ORANGE, highest_is_worst=True)
    _chart(axes[1], steps, entropy, style.BLUE, highest_is_worst=False)
    axes[0].set(ylabel="MaxVio: max/mean - 1")
    axes[1].set(xlabel="iteration", ylabel="entropy, 1 = balanced")
    known = violation[~np.isnan(violation)]
    axes[0].set_ylim(0, _ROOM_FOR_LEGEND * float(known.max(initial=0.1)))
    axes[1].set_ylim(top=1.0 if np.nanmin(entropy) < 0.995 else 1.001)
    if len(layers) > 1:
        axes[0].legend(loc="upper right", ncols=3, fontsize=7.5)
    style.title(axes[0], "Balance of experts over the steps", report, f"{_finding(layers)}; {worst_words(report)}")
    return figure


def _chart(axes: Axes, steps: list[int], table: FloatArray, colour: str, *, highest_is_worst: bool) -> None:
    known = ~np.isnan(table).all(axis=0)
    places, values = np.array(steps)[known], table[:, known]
    if not values.size:
        return
    median = np.nanmedian(values, axis=0)
    far = np.nanpercentile(values, 95 if highest_is_worst else 5, axis=0)
    worst = np.nanmax(values, axis=0) if highest_is_worst else np.nanmin(values, axis=0)
    axes.plot(places, median, color=colour, marker="o", markersize=3, label="median over layers")
    if len(table) > 1:
        axes.fill_between(places, median, far, color=colour, alpha=0.25, linewidth=0, label="to the 95th percentile")
        axes.plot(places, worst, color=style.INK, linewidth=0.8, linestyle=":", label="worst layer")
    axes.grid(axis="y")


def _finding(layers: list[ExpertLayerStats]) -> str:
    better = sum(layer.over_steps is not None and layer.over_steps.trend < 0 for layer in layers)
    worse = sum(layer.over_steps is not None and layer.over_steps.trend > 0 for layer in layers)
    if not better and not worse:
        return f"{len(layers)} layers; no trend is certain" if len(layers) > 1 else "no trend is certain"
    return f"layers that become more equal: {better} of {len(layers)}, more unequal: {worse}"
