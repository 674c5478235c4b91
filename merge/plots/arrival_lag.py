"""How much later than the median member each rank arrives at collectives, and how long it waits there.

A rank that others wait for arrives late and waits little.  The ranks that the verdict names are marked, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.quantities import common_unit
from distprof.merge.report import Report

_BARS_UP_TO = 64


def draw(report: Report) -> Figure | None:
    """Returns the plot; None where no rank has an arrival."""
    waits = report.collectives.waits
    if not waits:
        return None
    figure, (above, below) = style.new_panels(min(12.0, max(5.0, 2.4 + 0.36 * len(waits))), 4.8, 2)
    named = {one.rank for one in report.verdict.ranks.named}
    marked = [place for place, one in enumerate(waits) if one.rank in named]
    _draw_times(above, [one.lag_ns for one in waits], "lag", style.BLUE, marked)
    _draw_times(below, [one.wait_ns for one in waits], "wait", style.ORANGE, marked)
    style.rank_ticks(below.xaxis, [one.rank for one in waits])
    below.set_xlabel("rank")
    few = 0.35 * (len(waits) < 3)
    below.set_xlim(-0.5 - few, len(waits) - 0.5 + few)
    style.title(
        above, "Arrival at collectives", report, "lag behind the median member in a collective; wait in an iteration"
    )
    return figure


def _draw_times(axes: Axes, times_ns: Sequence[float], label: str, colour: str, marked: Sequence[int]) -> None:
    """Draws one value for each rank, in its own unit, and marks some places."""
    unit = common_unit(times_ns)
    times, places = np.array(times_ns) / unit.ns, np.arange(len(times_ns))
    if len(times) <= _BARS_UP_TO:
        axes.bar(places, times, 0.6, color=colour, linewidth=0)
    else:
        axes.step(places, times, color=colour, linewidth=0.9, where="mid")
    for place in marked:
        top = max(times[place], 0.0)
        axes.annotate("▼", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.axhline(0, color=style.INK, linewidth=0.8)
    axes.set_ylabel(f"{label} ({unit.name})")
    axes.margins(y=0.15)
    axes.grid(axis="y")
