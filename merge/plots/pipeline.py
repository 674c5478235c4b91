"""The stages of a pipeline: forward, backward and waiting, and the bubble beside its ideal."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import common_unit, whole_percent
from distprof.merge.report import Report, StageRow

_PARTS = (
    ("forward_ns", "forward", style.BLUE),
    ("backward_ns", "backward", style.SKY),
    ("waiting_ns", "waiting for other stages", style.NOTHING),
)


def draw(report: Report) -> Figure | None:
    """Returns the bars; None without pipeline parallelism."""
    rows = report.pipeline
    if not rows:
        return None
    lengths = [sum(getattr(row, field) for field, _, _ in _PARTS) for row in rows]
    unit = common_unit(lengths)
    figure, axes = style.new_figure(8.0, 2.1 + 0.4 * len(rows))
    for place, row in enumerate(rows):
        left = 0.0
        for field, _, colour in _PARTS:
            width = getattr(row, field) / unit.ns
            axes.barh(place, width, 0.7, left, color=colour, linewidth=0)
            left += width
        axes.annotate(_bubble(row), (left, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    axes.set_yticks(range(len(rows)), [str(row.stage) for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), ylabel="stage", xlabel=f"time of one iteration ({unit.name})")
    axes.set_xlim(0, 1.25 * max(lengths) / unit.ns)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    handles = [Patch(facecolor=colour, label=label) for _, label, colour in _PARTS]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    ideal = next((row.ideal_bubble for row in rows if row.ideal_bubble is not None), None)
    beside = "" if ideal is None else f"; with stages of equal times the bubble would be {whole_percent(ideal)}"
    style.title(axes, "Pipeline", report, f"medians over the ranks of each stage{beside}")
    return figure


def _bubble(row: StageRow) -> str:
    return "" if row.bubble is None else f"bubble {whole_percent(row.bubble)}"
