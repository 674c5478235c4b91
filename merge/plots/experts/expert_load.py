"""A map of layers x experts: each expert's load relative to the mean of its layer.

The value of the expert that the verdict calls overloaded is bold, and no other; where values are not written, a circle
is around it.  Lines separate the experts of different ep ranks.  Of more than 256 experts, the one furthest from the
mean stands for its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.report import OVERLOADED, ExpertLayerStats, ExpertVerdict, Report
from distprof.merge.text.blocks.moe.worst import worst_words

_ALL_VALUES_UP_TO = 96
_HOTTEST_UP_TO = 24
_CROSSES_UP_TO = 64
#: The colours below the mean span this many times less load than those above it: hot experts are what costs time.
_COLD_STEEPER = 2.0


def draw(report: Report) -> Figure | None:
    """Returns the map; None where no layer has expert loads."""
    layers = loaded_layers(report)
    if not layers:
        return None
    widest = max(layer.num_experts for layer in layers)
    loads = style.to_array([[*relative_loads(layer), *[None] * (widest - layer.num_experts)] for layer in layers])
    away, together = style.shared_columns(loads - 1)
    loads = away + 1
    figure, axes = style.new_figure(min(12.0, max(6.0, 3.4 + 0.42 * widest)), min(9.0, 2.2 + 0.34 * len(layers)))
    most = max(2.0, float(np.nanmax(loads)))
    limits = TwoSlopeNorm(1.0, min(0.0, 1 - (most - 1) / _COLD_STEEPER), most)
    bar = style.heat_map(figure, axes, loads, ("PuOr_r", limits), "load / layer's mean")
    bar.ax.set_ylim(0, most)
    overloaded = _overloaded_cell(layers, report.verdict.expert)
    if widest <= _HOTTEST_UP_TO:
        _values(axes, loads, limits, overloaded)
    elif overloaded is not None:
        _circle(axes, overloaded[0], overloaded[1] // together)
    if widest <= _CROSSES_UP_TO:
        _crosses(axes, loads, "white" if _is_dark(limits, 0.0) else style.INK)
    else:
        _coloured_dead(axes, loads)
    starts = report.expert_summary.ep_starts if report.expert_summary is not None else ()
    for start in starts:
        axes.axvline(start / together - 0.5, color=style.INK, linewidth=1.0)
    style.rank_ticks(axes.xaxis, range(0, widest, together))
    style.layer_ticks(axes, [layer.name for layer in layers])
    axes.set(xlabel=_key(layers, starts, together), ylabel="layer")
    grey = "; grey: no such expert, or no rank with it recorded" if np.isnan(loads).any() else ""
    detail = f"tokens over {max(layer.steps for layer in layers)} steps{grey}; {worst_words(report)}"
    detail += f"; {_finding(report.verdict.expert)}"
    style.title(axes, "Expert load", report, detail)
    return figure


def loaded_layers(report: Report) -> list[ExpertLayerStats]:
    """Returns the layers that processed any token."""
    return [layer for layer in report.experts if any(layer.tokens)]


def relative_loads(layer: ExpertLayerStats) -> list[float | None]:
    """Returns tokens / mean over recorded experts, for each expert; None where no recorded rank hosts the expert."""
    mean = fmean(tokens for tokens in layer.tokens if tokens is not None)
    return [None if tokens is None else tokens / mean for tokens in layer.tokens]


def _overloaded_cell(layers: Sequence[ExpertLayerStats], found: ExpertVerdict) -> tuple[int, int] | None:
    """Returns (row, column) of the expert that the verdict names, None where it names no expert."""
    if found.finding != OVERLOADED or found.expert is None:
        return None
    return next(((row, found.expert) for row, layer in enumerate(layers) if layer.name == found.layer), None)


def _values(axes: Axes, loads: FloatArray, limits: TwoSlopeNorm, overloaded: tuple[int, int] | None) -> None:
    """Writes every value of a small map, or the largest of each layer of a larger one."""
    for row, values in enumerate(loads):
        hottest = int(np.nanargmax(values))
        shown = range(len(values)) if loads.size <= _ALL_VALUES_UP_TO else [hottest]
        for column in shown:
            if values[column] > 0:
                dark = _is_dark(limits, float(values[column]))
                _value(axes, row, column, float(values[column]), bold=(row, column) == overloaded, dark=dark)


def _finding(found: ExpertVerdict) -> str:
    if found.finding != OVERLOADED:
        return "no expert is overloaded"
    return f"overloaded: expert {found.expert} of {style.short([found.layer])[0]}"


def _is_dark(limits: TwoSlopeNorm, load: float) -> bool:
    return abs(float(limits(load)) - 0.5) > style.READABLE


def _key(layers: Sequence[ExpertLayerStats], starts: Sequence[int], together: int) -> str:
    """Returns the title of the horizontal axis, with what the marks mean."""
    wide = max(layer.num_experts for layer in layers) > _CROSSES_UP_TO
    marks = [f"{'green' if wide else 'x'}: no token"] if not wide or any(layer.dead for layer in layers) else []
    marks += ["lines: ep ranks"] if starts else []
    marks += [f"of {together} experts, the one furthest from the mean"] if together > 1 else []
    return f"expert ({'; '.join(marks)})" if marks else "expert"


def _coloured_dead(axes: Axes, loads: FloatArray) -> None:
    """Gives experts without tokens a colour that no load has: their cells are too small for crosses."""
    dead = np.where(loads == 0, 1.0, np.nan)
    axes.imshow(dead, cmap=ListedColormap([style.GREEN]), aspect="auto", interpolation="none")


def _circle(axes: Axes, row: int, column: int) -> None:
    """Draws a black circle with a white edge on both sides: it lies on cells of any colour."""
    for colour, width in (("white", 4.0), (style.INK, 1.8)):
        (drawn,) = axes.plot(
            column, row, "o", markerfacecolor="none", markeredgecolor=colour, markersize=16, markeredgewidth=width
        )
        drawn.set_clip_on(False)  # the cell may be at an edge, and narrower than the circle


def _crosses(axes: Axes, loads: FloatArray, colour: str) -> None:
    dead = np.argwhere(loads == 0)
    axes.plot(dead[:, 1], dead[:, 0], "x", color=colour, markersize=5, markeredgewidth=1.4)


def _value(axes: Axes, row: int, column: int, value: float, *, bold: bool, dark: bool) -> None:
    colour = "white" if dark else style.INK
    weight = "bold" if bold else "normal"
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7.5, fontweight=weight, color=colour)
