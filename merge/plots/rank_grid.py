"""A grid of the job's places (stages x replicas, tensor-parallel ranks x replicas, hosts x ranks): what an iteration
would gain if the ranks at one place ran like the others of their cohort.

The places of the ranks that the verdict names are framed or circled, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import GainGrid, RankVerdict, Report

_Mark = Callable[[Axes, int, int], None]
_FRAMED_UP_TO = 96  # rows; those of more are thinner than a frame
_VALUES_UP_TO = 96  # cells with a number in each
_DARK = 0.66  # share of the colour scale beyond which black cannot be read
_TITLES = {"pp": "pipeline stage", "tp": "tensor-parallel rank", "host": "host", "dp": "replica (dp)"}


def draw(report: Report) -> Figure | None:
    """Returns the grid; None where there is none."""
    grid = report.gains
    gains = style.to_array(grid.gain_ns)
    if not grid.rows or np.isnan(gains).all():
        return None
    limit = style.colour_limit(gains, report.verdict.ranks)
    unit = common_unit([limit])
    cells, together = style.shared_columns(gains / unit.ns)
    rows_together = -(-len(cells) // style.MOST_CELLS)
    cells = style.shared_rows(cells, rows_together)
    figure, axes = style.new_figure(
        min(12.0, max(5.5, 3.2 + 0.5 * cells.shape[1])), min(8.5, 2.4 + 0.36 * len(grid.rows))
    )
    what = "gain" if grid.by_replay else "own time above the cohort"
    colours = ("RdBu_r", Normalize(-limit / unit.ns, limit / unit.ns))
    style.heat_map(figure, axes, cells, colours, f"{what} ({unit.name})")
    axes.set_yticks(*_row_ticks(grid.rows[::rows_together]))
    style.rank_ticks(axes.xaxis, [int(name) for name in grid.columns[::together]])
    axes.set(xlabel=_TITLES.get(grid.column_axis, grid.column_axis), ylabel=_TITLES.get(grid.row_axis, grid.row_axis))
    named = _named(grid, report.verdict.ranks)
    mark = style.frame if len(cells) <= _FRAMED_UP_TO else _circle
    for row, column in named:
        mark(axes, row // rows_together, column // together)
    if cells.size <= _VALUES_UP_TO:
        _values(axes, cells, limit / unit.ns)
    style.title(axes, "What each place costs", report, _detail(grid, gains, named, unit, mark))
    return figure


def _detail(grid: GainGrid, gains: FloatArray, named: list[tuple[int, int]], unit: TimeUnit, mark: _Mark) -> str:
    words = "by how much an iteration would be shorter if the ranks there ran like the others of their cohort"
    if not grid.by_replay:
        words = "by how much the ranks' own time of an iteration exceeds that of the others of their cohort"
    shared = [(-(-size // style.MOST_CELLS), what) for size, what in zip(gains.shape, ("row", "column"), strict=True)]
    sharing = "".join(f"; each {what} has the extremes of {number}" for number, what in shared if number > 1)
    unknown = "; grey: no rank, or none to compare with" if np.isnan(gains).any() else ""
    if not named:
        return f"{words}{sharing}{unknown}; no rank is named"
    row, column = max(named, key=lambda place: np.nan_to_num(gains[place]))
    value = f"{gains[row, column] / unit.ns:+.3g} {unit.name}"
    where = f"{grid.row_axis} {grid.rows[row]}, {grid.column_axis} {grid.columns[column]}"
    marked = "framed" if mark is style.frame else "circled"
    return f"{words}{sharing}{unknown}; {marked}: named ranks, the most at {where}: {value}"


def _row_ticks(names: Sequence[str]) -> tuple[list[int], list[str]]:
    step = -(-len(names) // 32)
    return list(range(0, len(names), step)), style.short(names[::step])


def _named(grid: GainGrid, found: RankVerdict) -> list[tuple[int, int]]:
    """Returns the places of the named ranks."""
    ranks = {one.rank for one in found.named}
    return [
        (row, column)
        for row, places in enumerate(grid.ranks)
        for column, own in enumerate(places)
        if ranks.intersection(own)
    ]


def _circle(axes: Axes, row: int, column: int) -> None:
    """Marks a cell that a frame would cover."""
    axes.plot(column, row, "o", markerfacecolor="none", markeredgecolor=style.INK, markersize=14, markeredgewidth=1.4)


def _values(axes: Axes, cells: FloatArray, limit: float) -> None:
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            colour = "white" if abs(value) > _DARK * limit else style.INK
            words = f"{value:+.1f}" if round(value, 1) else "0"
            axes.text(column, row, words, ha="center", va="center", fontsize=7.5, color=colour)
