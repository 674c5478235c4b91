"""The modules of most own time: forward and backward, and the wait in collectives beside them, where it is known."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import common_unit, whole_percent
from distprof.merge.report import Report

_ROWS_SHOWN = 20
_PARTS = (
    ("forward_ns", "forward", style.BLUE),
    ("backward_ns", "backward", style.SKY),
    ("wait_ns", "wait in collectives", style.ORANGE),
)


def draw(report: Report) -> Figure | None:
    """Returns the bars; None where no module was timed."""
    rows = report.time.modules[:_ROWS_SHOWN]
    lengths = [sum(getattr(row, field) or 0.0 for field, _, _ in _PARTS) for row in rows]
    if not any(lengths):
        return None
    unit = common_unit(lengths)
    figure, axes = style.new_figure(8.0, 1.9 + 0.27 * len(rows))
    for place, row in enumerate(rows):
        left = 0.0
        for field, _, colour in _PARTS:
            width = (getattr(row, field) or 0.0) / unit.ns
            if width:
                axes.barh(place, width, 0.7, left, color=colour, linewidth=0)
            left += width
        axes.annotate(
            whole_percent(row.share), (left, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    axes.set_yticks(range(len(rows)), style.short([row.subject for row in rows]))
    axes.set(ylim=(len(rows) - 0.5, -0.5), ylabel="module", xlabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(0, 1.1 * max(lengths) / unit.ns)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    parts = [part for part in _PARTS if any(getattr(row, part[0]) for row in rows)]
    handles = [Patch(facecolor=colour, label=label) for _, label, colour in parts]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    more = len(report.time.modules) - len(rows)
    beside = f"; {more} more modules in summary.json" if more > 0 else ""
    what = "; %: of an iteration, without waits" if report.time.has_own_times else ", and in % of an iteration"
    style.title(axes, "Where the time goes", report, f"time of modules without those inside{what}{beside}")
    return figure
