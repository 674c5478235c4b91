"""The spread of each rank's iteration time over its timed steps; of many ranks, a map of ranks x steps.

The map has own times, without waits in collectives, where these are known: only the rank that makes a step long is
dark in it, and not those that wait for it.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import RankRow, Report

_BARS_UP_TO = 32
_SHARES = (0, 25, 50, 75, 100)


def draw(report: Report) -> Figure | None:
    """Returns the plot; None where no rank has two timed steps."""
    rows = [row for row in report.ranks if row.step_durations_ns]
    if max((len(row.step_durations_ns) for row in rows), default=0) < 2:
        return None
    return _spread(report, rows) if len(rows) <= _BARS_UP_TO else _map(report, rows)


def _spread(report: Report, rows: list[RankRow]) -> Figure:
    unit = common_unit(float(max(row.step_durations_ns)) for row in rows)
    levels = np.array([np.percentile(row.step_durations_ns, _SHARES) for row in rows]).T / unit.ns
    figure, axes = style.new_figure(min(12.0, max(5.0, 3.2 + 0.36 * len(rows))), 4.2)
    _bars(axes, rows, levels, unit)
    style.rank_ticks(axes.xaxis, [row.rank for row in rows])
    axes.set(xlabel="rank", ylabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(*style.rank_limits(len(rows)))
    axes.set_ylim(0, 1.08 * float(levels.max()))
    axes.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(axes, "Spread over steps", report, f"the {_steps(rows)} timed steps of each rank")
    return figure


def _map(report: Report, rows: list[RankRow]) -> Figure:
    iterations = sorted({iteration for row in rows for iteration in row.step_iterations})
    excess, own = excess_by_step(rows, iterations)
    limit = style.colour_limit(excess, report.verdict.ranks)
    unit = common_unit([limit])
    together = -(-len(rows) // style.MOST_CELLS)
    lines = style.shared_rows(excess, together) / unit.ns
    figure, axes = style.new_figure(max(6.0, min(12.0, 3.0 + 0.4 * len(iterations))), min(8.5, 3.0 + 0.1 * len(lines)))
    what = "own time" if own else "time"
    colours = ("RdBu_r", Normalize(-limit / unit.ns, limit / unit.ns))
    style.heat_map(figure, axes, lines, colours, f"{what} above the cohort's median ({unit.name})")
    style.rank_ticks(axes.yaxis, [row.rank for row in rows][::together])
    style.rank_ticks(axes.xaxis, iterations)
    axes.set(xlabel="iteration", ylabel="rank")
    named = {one.rank for one in report.verdict.ranks.named}
    for place, row in enumerate(rows):
        if row.rank in named:
            axes.annotate(
                f"◀ {row.rank}", (1.0, place // together), (1, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=7, annotation_clip=False,
            )  # fmt: skip
    sharing = f", each line the extremes of {together} ranks" if together > 1 else ""
    grey = "; grey: not recorded" if np.isnan(lines).any() else ""
    marks = "; ◀ marks slow ranks" if named else "; no rank is named"
    style.title(axes, "Steps of all ranks", report, f"{what} of each iteration{sharing}{grey}{marks}")
    return figure


def excess_by_step(rows: list[RankRow], iterations: list[int]) -> tuple[FloatArray, bool]:
    """Returns (ranks, iterations) times minus the median of the rank's cohort over all its ranks and steps, in ns, NaN
    for a step that was not recorded; and whether they are own times.
    """
    own = all(row.step_own_ns for row in rows)
    times = np.full((len(rows), len(iterations)), np.nan)
    for place, row in enumerate(rows):
        times[place, np.searchsorted(iterations, row.step_iterations)] = (
            row.step_own_ns if own else row.step_durations_ns
        )
    for cohort in {row.cohort for row in rows}:
        members = [place for place, row in enumerate(rows) if row.cohort == cohort]
        times[members] -= np.nanmedian(times[members])
    return times, own


def _bars(axes: Axes, rows: list[RankRow], levels: FloatArray, unit: TimeUnit) -> None:
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


def _steps(rows: list[RankRow]) -> str:
    counts = sorted({len(row.step_durations_ns) for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
