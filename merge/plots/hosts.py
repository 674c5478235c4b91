"""Hosts side by side: the own time and the wait of an iteration, medians over the ranks of each host.

Hosts with ranks that the verdict names are marked, and no others.
"""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import common_unit
from distprof.merge.report import Report

_NAMED_UP_TO = 32
_LEVEL_UP_TO = 6  # names
_PARTS = (("own", style.BLUE), ("wait", style.ORANGE))


def draw(report: Report) -> Figure | None:
    """Returns the bars; None for a single host, or where nothing was timed."""
    rows = [row for row in report.hosts if row.iteration_ns is not None]
    if len(rows) < 2:
        return None
    known = all(row.own_ns is not None for row in rows)
    unit = common_unit(row.iteration_ns for row in rows)
    own = np.array([(row.own_ns if known else row.iteration_ns) or 0.0 for row in rows]) / unit.ns
    waits = np.array([(row.wait_ns or 0.0) if known else 0.0 for row in rows]) / unit.ns
    figure, axes = style.new_figure(min(12.0, max(5.0, 2.8 + 0.5 * len(rows))), 4.2)
    for (_, colour), low, high in zip(_PARTS, (np.zeros(len(rows)), own), (own, own + waits), strict=True):
        boxes = style.bars(low, high, 0.72 if len(rows) <= _NAMED_UP_TO else 1.0)
        axes.add_collection(style.rasterised(PolyCollection(boxes, facecolor=colour, linewidth=0), len(boxes)))
    for place, row in enumerate(rows):
        if row.slow:
            words = f"▼ {len(row.slow)} of {len(row.ranks)}" if len(rows) <= _NAMED_UP_TO else "▼"
            top = (place, float(own[place] + waits[place]))
            axes.annotate(words, top, (0, 3), textcoords="offset points", ha="center", fontsize=7.5)
    step = -(-len(rows) // _NAMED_UP_TO)
    names = style.short([row.host for row in rows])
    axes.set_xticks(range(0, len(rows), step), names[::step])
    if len(rows) > _LEVEL_UP_TO:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right")
    axes.set(xlabel="host", ylabel=f"time of one iteration ({unit.name})", ylim=(0, 1.14 * float((own + waits).max())))
    axes.set_xlim(*style.rank_limits(len(rows)))
    axes.grid(axis="y")
    labels = ("own time", "wait in collectives") if known else ("iteration, waits included",)
    handles = [Patch(facecolor=colour, label=label) for (_, colour), label in zip(_PARTS, labels, strict=False)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    found = "▼: slow ranks of the host" if any(row.slow for row in rows) else "no rank of any is named"
    style.title(axes, "Hosts", report, f"medians over the ranks of each host; {found}")
    return figure
