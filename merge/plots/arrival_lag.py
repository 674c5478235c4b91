"""How much later than the median member each rank arrives at collectives, and how long it waits there.

A rank that others wait for arrives late and waits little.  The ranks that the verdict names are marked, and no others.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import RankWait, Report

_BARS_UP_TO = 64
_LAG, _WAIT = "lag, in the median\ncollective", "wait, in the median\niteration"


def draw(report: Report) -> Figure | None:
    """Returns the plot; None where no rank has an arrival."""
    waits = report.collectives.waits
    if not waits:
        return None
    unit = common_unit(value for one in waits for value in (one.lag_ns, one.wait_ns))
    figure, axes = style.new_figure(min(12.0, max(5.0, 3.2 + 0.36 * len(waits))), 4.2)
    lags, times = (np.array(values) / unit.ns for values in ([w.lag_ns for w in waits], [w.wait_ns for w in waits]))
    places = np.arange(len(waits))
    if len(waits) <= _BARS_UP_TO:
        axes.bar(places - 0.19, lags, 0.36, color=style.BLUE, label=_LAG, linewidth=0)
        axes.bar(places + 0.19, times, 0.36, color=style.ORANGE, label=_WAIT, linewidth=0)
    else:
        axes.step(places, times, color=style.ORANGE, linewidth=0.9, where="mid", label=_WAIT)
        axes.step(places, lags, color=style.BLUE, linewidth=0.9, where="mid", label=_LAG)
    axes.axhline(0, color=style.INK, linewidth=0.8)
    _mark(axes, waits, {one.rank for one in report.verdict.ranks.named}, unit)
    style.rank_ticks(axes.xaxis, [one.rank for one in waits])
    axes.set(xlabel="rank", ylabel=f"time ({unit.name})")
    axes.set_xlim(-0.5 - 0.35 * (len(waits) < 3), len(waits) - 0.5 + 0.35 * (len(waits) < 3))
    axes.margins(y=0.1)
    axes.grid(axis="y")
    figure.legend(loc="outside right center")
    style.title(axes, "Arrival at collectives", report, "lag behind the median member, and wait")
    return figure


def _mark(axes: Axes, waits: tuple[RankWait, ...], named: set[int], unit: TimeUnit) -> None:
    """Marks the bars of the ranks that the verdict names."""
    for place, one in enumerate(waits):
        if one.rank in named:
            top = max(one.lag_ns, one.wait_ns, 0.0) / unit.ns
            axes.annotate("▼", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
