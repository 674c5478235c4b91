"""Ranked expert load, one curve for each layer: how steeply the load falls from the hottest expert to the coldest."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from distprof.merge.plots import style
from distprof.merge.plots.loads import loaded_layers, relative_loads
from distprof.merge.report import ExpertLayerStats, Report

_NAMED_UP_TO = 10
_MARKED_UP_TO = 32


def draw(report: Report) -> Figure | None:
    """Returns the curves; None where no layer has expert loads."""
    layers = loaded_layers(report)
    if not layers:
        return None
    figure, axes = style.new_figure(7.5, 4.2)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, 256))  # without the yellow end, which is too pale for a line
    last = max(1, len(layers) - 1)
    names = style.short([layer.name for layer in layers])
    for place, (layer, name) in enumerate(zip(layers, names, strict=True)):
        _curve(axes, ranked(layer), shades[255 * place // last], name)
    axes.axhline(1, color=style.INK, linestyle="--", linewidth=1, label="balanced")
    if len(layers) <= _NAMED_UP_TO:
        figure.legend(loc="outside right center")
    else:
        figure.colorbar(
            ScalarMappable(Normalize(0, last), ListedColormap(shades)),
            ax=axes,
            label="MoE layer, in the order of the model",
        )
    axes.set(xlabel="experts of a layer, hottest first", ylabel="load / layer's mean")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    style.title(axes, "Ranked expert load", report, f"tokens over {max(layer.steps for layer in layers)} steps")
    return figure


def ranked(layer: ExpertLayerStats) -> list[float]:
    """Returns the relative loads of the recorded experts, largest first."""
    return sorted((load for load in relative_loads(layer) if load is not None), reverse=True)


def _curve(axes: Axes, loads: list[float], colour: style.FloatArray, label: str) -> None:
    marker = "o" if len(loads) <= _MARKED_UP_TO else None
    places = range(1, len(loads) + 1)
    axes.plot(places, loads, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=label)
