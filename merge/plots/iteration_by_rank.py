"""Iteration time by rank, stacked by phase: which rank is slow, and in which phase."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import RankRow, RankVerdict, Report
from distprof.merge.wording import phase_title
from distprof.rank_names import rank_names
from distprof.records import PHASES

_BARS_UP_TO = 64
_MOST_COLUMNS = 512  # more of them share pixels


def draw(report: Report) -> Figure | None:
    """Returns the stacked bars; None where no rank has a timed step."""
    rows = [row for row in report.ranks if row.iteration_ns is not None]
    if not rows:
        return None
    unit = common_unit(row.iteration_ns for row in rows)
    together = -(-len(rows) // _MOST_COLUMNS)
    first = [row.rank for row in rows[::together]]
    rows = _remarkable(rows, together, {one.rank for one in report.verdict.ranks.named})
    figure, axes = style.new_figure(min(12.0, max(5.0, 3.2 + 0.36 * len(rows))), 4.2)
    width = 0.72 if len(rows) <= _BARS_UP_TO else 1.0
    shown = [phase for phase in PHASES if any(row.phases_ns.get(phase) for row in rows)]
    _stack(axes, rows, shown, unit, width)
    _totals(axes, rows, unit, width)
    _name_slow_ranks(axes, rows, report.verdict.ranks, unit)
    _legend(figure, shown)
    style.rank_ticks(axes.xaxis, first)
    axes.set(xlabel="rank", ylabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(*style.rank_limits(len(rows)))
    axes.grid(axis="y")
    whose = f", of each {together} ranks the one furthest from the median" if together > 1 else ""
    style.title(axes, "Iteration time by rank", report, f"medians over timed steps{whose}")
    return figure


def _remarkable(rows: list[RankRow], together: int, named: set[int]) -> list[RankRow]:
    """Returns of each ``together`` rows a named one, else the one whose phases are furthest from their medians."""
    if together == 1:
        return rows
    phases = np.array([[row.phases_ns.get(phase) or 0.0 for phase in PHASES] for row in rows])
    apart = np.abs(phases - np.median(phases, axis=0)).sum(axis=1)
    apart[[row.rank in named for row in rows]] = np.inf
    return [rows[first + int(apart[first : first + together].argmax())] for first in range(0, len(rows), together)]


def _stack(axes: Axes, rows: list[RankRow], phases: list[str], unit: TimeUnit, width: float) -> None:
    """Draws one collection for each phase, which is fast for any number of ranks."""
    base = [0.0] * len(rows)
    for phase in phases:
        top = [low + (row.phases_ns.get(phase) or 0.0) / unit.ns for low, row in zip(base, rows, strict=True)]
        boxes = style.bars(np.array(base), np.array(top), width)
        bars = PolyCollection(boxes, facecolor=style.PHASES[phase], linewidth=0, label=phase)
        axes.add_collection(style.rasterised(bars, len(boxes)))
        base = top
    axes.set_ylim(0, 1.16 * max(map(_height, rows)) / unit.ns)


def _totals(axes: Axes, rows: list[RankRow], unit: TimeUnit, width: float) -> None:
    """Draws the median of the iteration as a line over each bar; over bars without gaps, one line."""
    heights = [(row.iteration_ns or 0.0) / unit.ns for row in rows]
    if width >= 1:
        style.bar_lines(axes, np.array(heights), width, "iteration")
        return
    lines = [[(place - width / 2, height), (place + width / 2, height)] for place, height in enumerate(heights)]
    totals = LineCollection(lines, color=style.INK, linewidth=1.2, label="iteration")
    axes.add_collection(style.rasterised(totals, len(lines)))


def _name_slow_ranks(axes: Axes, rows: list[RankRow], found: RankVerdict, unit: TimeUnit) -> None:
    """Marks the bars of the named ranks, and writes above them where they are slow: other bars may be as high."""
    named = {one.rank for one in found.named}
    places = [place for place, row in enumerate(rows) if row.rank in named]
    if not places:
        return
    for place in places:
        own = _height(rows[place]) / unit.ns
        axes.annotate("▼", (place, own), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    middle = places[len(places) // 2]
    side = "left" if middle < len(rows) / 4 else "right" if middle >= len(rows) * 3 / 4 else "center"
    if len(places) > 1:  # a longer text, which would cross an axis if it were centred
        side = "left" if middle < len(rows) / 2 else "right"
    edge = {"left": places[0] - 0.5, "center": middle, "right": places[-1] + 0.5}[side]
    highest = max(map(_height, rows)) / unit.ns
    words = _words(found, unit)
    axes.annotate(words, (edge, highest), (0, 12), textcoords="offset points", ha=side, fontweight="bold")


def _words(found: RankVerdict, unit: TimeUnit) -> str:
    """Returns who is slow, and for a single rank in which phase and by how much."""
    if len(found.named) > 1:
        return f"{rank_names(one.rank for one in found.named)}: {found.finding}"
    slow = found.named[0]
    return f"rank {slow.rank}: {phase_title(slow.phase)} {slow.excess_ns / unit.ns:+.1f} {unit.name}"


def _height(row: RankRow) -> float:
    """Returns the height of the rank's bar: medians of phases need not add up to the median of the iteration."""
    return max(row.iteration_ns or 0.0, sum(value or 0.0 for value in row.phases_ns.values()))


def _legend(figure: Figure, phases: list[str]) -> None:
    handles: list[Patch | Line2D] = [Line2D([], [], color=style.INK, linewidth=1.2, label="whole iteration")]
    handles += [Patch(facecolor=style.PHASES[phase], label=phase_title(phase)) for phase in reversed(phases)]
    figure.legend(handles=handles, loc="outside right center")
