"""Dropped choices and experts without a token, from step to step: all layers, and the worst one."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.plots.experts.layer_steps import FEWEST_STEPS, layers_over_steps, table_over_steps
from distprof.merge.report import Report
from distprof.merge.text.blocks.moe.worst import worst_words


def draw(report: Report) -> Figure | None:
    """Returns the two charts; None where nothing was dropped and each expert had tokens in each of the steps."""
    layers, steps = layers_over_steps(report)
    dropped, dead = (table_over_steps(layers, steps, measure) for measure in ("dropped", "dead"))
    if len(steps) < FEWEST_STEPS or not (np.nansum(dropped) or np.nansum(dead)):
        return None
    figure, axes = style.new_panels(7.0, 5.0, 2)
    _chart(axes[0], steps, dropped, style.ORANGE)
    _chart(axes[1], steps, dead, style.BLUE)
    axes[0].set(ylabel="dropped choices" if np.isfinite(dropped).any() else "dropped choices: not known")
    axes[1].set(xlabel="iteration", ylabel="experts without a token")
    if len(layers) > 1:
        axes[1].legend(loc="upper right", ncols=2, fontsize=7.5)
    style.title(
        axes[0], "Dropped choices, and experts without a token", report, f"{len(layers)} layers; {worst_words(report)}"
    )
    return figure


def _chart(axes: Axes, steps: list[int], table: FloatArray, colour: str) -> None:
    axes.set_ylim(0, max(1.0, 1.3 * float(np.nansum(table, axis=0).max(initial=0))))
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    if not np.isfinite(table).any():
        return
    axes.plot(steps, np.nansum(table, axis=0), color=colour, marker="o", markersize=3, label="all layers")
    if len(table) > 1:
        worst = np.nanmax(np.nan_to_num(table), axis=0)
        axes.plot(steps, worst, color=style.INK, linewidth=0.8, linestyle=":", label="layer with the most")
