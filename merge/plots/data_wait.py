"""How long each rank waits for the next batch: its median, and its longest wait over the timed steps."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.quantities import common_unit, whole_percent
from distprof.merge.report import RankRow, Report
from distprof.rank_names import rank_names

_BARS_UP_TO = 64
#: Waits of a smaller share of the iteration on every rank are not worth a picture.
_LEAST_SHARE = 0.02


def draw(report: Report) -> Figure | None:
    """Returns the bars; None where no DataLoader was seen, or no rank waits for it."""
    rows = [row for row in report.ranks if row.phases_ns.get("data") is not None]
    medians = np.array([row.phases_ns["data"] or 0.0 for row in rows])
    longest = np.array(
        [max(row.data_max_ns or 0.0, median) for row, median in zip(rows, medians.tolist(), strict=True)]
    )
    if not rows or not _worth_a_picture(rows, longest):
        return None
    unit = common_unit(longest.tolist())
    width = 0.72 if len(rows) <= _BARS_UP_TO else 1.0
    figure, axes = style.new_figure(min(12.0, max(5.0, 3.2 + 0.36 * len(rows))), 4.0)
    boxes = style.bars(np.zeros(len(rows)), medians / unit.ns, width)
    axes.add_collection(style.rasterised(PolyCollection(boxes, facecolor=style.ORANGE, linewidth=0), len(boxes)))
    style.bar_lines(axes, longest / unit.ns, width, "longest step")
    named = [one.rank for one in report.verdict.ranks.named if one.phase == "data"]
    for place, row in enumerate(rows):
        if row.rank in named:
            top = (place, float(longest[place] / unit.ns))
            axes.annotate("▼", top, (0, 2), textcoords="offset points", ha="center", fontsize=7)
    style.rank_ticks(axes.xaxis, [row.rank for row in rows])
    axes.set(xlabel="rank", ylabel=f"data wait of one iteration ({unit.name})")
    axes.set_xlim(*style.rank_limits(len(rows)))
    axes.set_ylim(0, 1.12 * float(longest.max()) / unit.ns)
    axes.grid(axis="y")
    handles = [Patch(facecolor=style.ORANGE, label="median step")]
    figure.legend(
        handles=[*handles, Line2D([], [], color=style.INK, linewidth=1.2, label="longest step")],
        loc="outside right center",
    )
    style.title(axes, "Data wait by rank", report, _detail(rows, medians, named))
    return figure


def _worth_a_picture(rows: list[RankRow], longest: FloatArray) -> bool:
    return any(wait >= _LEAST_SHARE * (row.iteration_ns or 0.0) > 0 for row, wait in zip(rows, longest, strict=True))


def _detail(rows: list[RankRow], medians: FloatArray, named: list[int]) -> str:
    most = int(medians.argmax())
    share = float(medians[most]) / (rows[most].iteration_ns or 1.0)
    found = f"; slow: {rank_names(named)}" if named else ""
    return f"waits for the next batch of a DataLoader; at most {whole_percent(share)} of the iteration{found}"
