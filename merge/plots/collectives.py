"""Own time, wait and transfer of the collectives, a bar for each kind of group and op."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit, percentage
from distprof.merge.report import CollectiveRow, Report

_ROWS_SHOWN = 16
_PARTS = (
    ("own_ns", "own time beside the wait", style.BLUE),
    ("wait_ns", "wait for the last member", style.ORANGE),
    ("transfer_ns", "transfer", style.GREEN),
)


def draw(report: Report) -> Figure | None:
    """Returns the bars; None where no collective has a wait or a transfer."""
    rows = [row for row in report.collectives.rows if _is_timed(row)]
    shown = rows[:_ROWS_SHOWN]
    if not shown:
        return None
    unit = common_unit(_length(row) for row in shown)
    figure, axes = style.new_figure(8.0, 1.9 + 0.36 * len(shown))
    for place, row in enumerate(shown):
        _bar(axes, place, row, unit)
    names = style.short([f"{row.kind}.{row.op}" for row in shown])
    axes.set_yticks(range(len(shown)), [name.replace(".", " ") for name in names])
    axes.set(ylim=(len(shown) - 0.5, -0.5), ylabel="group and op", xlabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(0, 1.12 * max(map(_length, shown)) / unit.ns)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    _legend(figure, shown)
    more = f"; {len(rows) - len(shown)} more in summary.json" if len(shown) < len(rows) else ""
    style.title(axes, "Collectives", report, f"means over ranks and steps, wait + transfer in % of the iteration{more}")
    return figure


def _is_timed(row: CollectiveRow) -> bool:
    return row.wait_ns is not None or row.transfer_ns is not None


def _length(row: CollectiveRow) -> float:
    return sum(getattr(row, field) or 0.0 for field, _, _ in _PARTS)


def _bar(axes: Axes, place: int, row: CollectiveRow, unit: TimeUnit) -> None:
    left = 0.0
    for field, _, colour in _PARTS:
        width = (getattr(row, field) or 0.0) / unit.ns
        if width:
            axes.barh(place, width, 0.7, left, color=colour, linewidth=0)
        left += width
    if row.share is not None:
        axes.annotate(
            percentage(round(row.share, 3), 1.0),
            (left, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )


def _legend(figure: Figure, rows: list[CollectiveRow]) -> None:
    """Adds the parts that any row has: without completion there is no transfer."""
    parts = [part for part in _PARTS if any(getattr(row, part[0]) for row in rows)]
    handles = [Patch(facecolor=colour, label=label) for _, label, colour in parts]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
