"""The spread of each rank's iteration time over its timed steps."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import RankRow, Report

_BARS_UP_TO = 64
_SHARES = (0, 25, 50, 75, 100)


def draw(report: Report) -> Figure | None:
    """Returns the plot; None where no rank has two timed steps."""
    rows = [row for row in report.ranks if row.step_durations_ns]
    if max((len(row.step_durations_ns) for row in rows), default=0) < 2:
        return None
    unit = common_unit(float(max(row.step_durations_ns)) for row in rows)
    levels = np.array([np.percentile(row.step_durations_ns, _SHARES) for row in rows]).T / unit.ns
    figure, axes = style.new_figure(min(12.0, max(5.0, 3.2 + 0.36 * len(rows))), 4.2)
    if len(rows) <= _BARS_UP_TO:
        _bars(axes, rows, levels, unit)
    else:
        _bands(axes, levels)
    style.rank_ticks(axes.xaxis, [row.rank for row in rows])
    axes.set(xlabel="rank", ylabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(-0.5 - 0.35 * (len(rows) < 3), len(rows) - 0.5 + 0.35 * (len(rows) < 3))
    axes.set_ylim(0, 1.08 * float(levels.max()))
    axes.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(axes, "Spread over steps", report, f"the {_steps(rows)} timed steps of each rank")
    return figure


def _bars(axes: Axes, rows: list[RankRow], levels: style.FloatArray, unit: TimeUnit) -> None:
    """Draws for each rank a thin line over all steps, a thick one over the middle half, the median, and all steps."""
    least, lower, middle, upper, most = levels
    places = np.arange(len(rows))
    for low, high, width, label in ((least, most, 1.2, "all steps"), (lower, upper, 8.0, "middle half")):
        ends = np.stack([np.stack([places, low], axis=1), np.stack([places, high], axis=1)], axis=1)
        axes.add_collection(LineCollection(list(ends), color=style.SKY, linewidth=width, label=label, capstyle="butt"))
    axes.plot(places, middle, "_", color=style.INK, markersize=11, markeredgewidth=1.8, label="median")
    at = np.repeat(places, [len(row.step_durations_ns) for row in rows])
    steps = np.concatenate([np.asarray(row.step_durations_ns) for row in rows]) / unit.ns
    axes.plot(at, steps, ".", color=style.BLUE, markersize=3.5, label="one step")


def _bands(axes: Axes, levels: style.FloatArray) -> None:
    least, lower, middle, upper, most = levels
    places = np.arange(levels.shape[1])
    axes.fill_between(places, least, most, color=style.SKY, alpha=0.35, linewidth=0, step="mid", label="all steps")
    axes.fill_between(places, lower, upper, color=style.SKY, linewidth=0, step="mid", label="middle half")
    axes.step(places, middle, color=style.INK, linewidth=0.9, where="mid", label="median")


def _steps(rows: list[RankRow]) -> str:
    counts = sorted({len(row.step_durations_ns) for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
