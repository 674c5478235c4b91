"""Memory by rank: what is held between iterations, stacked, and the peak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.report import HOLDINGS, RankRow, Report

_COLOURS = {"parameters": style.BLUE, "gradients": style.SKY, "optimizer state": style.GREEN}
_BARS_UP_TO = 64
_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
_SOURCES = {"allocator": "of torch's allocator", "rss": "of the process (RSS)"}


def draw(report: Report) -> Figure | None:
    """Returns the bars; None where no rank has a figure."""
    rows = report.ranks
    tops = [max(_held(row), row.peak_memory_bytes or 0) for row in rows]
    if not any(tops):
        return None
    size, unit = next((size, name) for size, name in _UNITS if max(tops) >= size)
    width = 0.72 if len(rows) <= _BARS_UP_TO else 1.0
    figure, axes = style.new_figure(min(12.0, max(5.5, 3.4 + 0.36 * len(rows))), 4.2)
    base = np.zeros(len(rows))
    shown = [what for what in _COLOURS if any(getattr(row, HOLDINGS[what]) for row in rows)]
    for what in shown:
        top = base + np.array([(getattr(row, HOLDINGS[what]) or 0) / size for row in rows])
        boxes = style.bars(base, top, width)
        axes.add_collection(
            style.rasterised(PolyCollection(boxes, facecolor=_COLOURS[what], linewidth=0, label=what), len(boxes))
        )
        base = top
    peaks = np.array([(row.peak_memory_bytes or np.nan) / size for row in rows])
    style.bar_lines(axes, peaks, width, "peak")
    style.rank_ticks(axes.xaxis, [row.rank for row in rows])
    axes.set(xlabel="rank", ylabel=f"memory ({unit})", ylim=(0, 1.08 * max(tops) / size))
    axes.set_xlim(*style.rank_limits(len(rows)))
    axes.grid(axis="y")
    handles: list[Patch | Line2D] = [Line2D([], [], color=style.INK, linewidth=1.4, label="peak")]
    handles += [Patch(facecolor=_COLOURS[what], label=what) for what in reversed(shown)]
    figure.legend(handles=handles, loc="outside right center")
    held = "held between iterations, and " if shown else ""
    held = "held between iterations, and " if shown else ""
    style.title(axes, "Memory by rank", report, f"{held}the peak{_source(rows)}{_most(rows)}")
    return figure


def _held(row: RankRow) -> int:
    return sum(getattr(row, HOLDINGS[what]) or 0 for what in _COLOURS)


def _source(rows: Sequence[RankRow]) -> str:
    """Returns where the peak was read, if it is the same on all ranks."""
    sources = {row.memory_source for row in rows if row.peak_memory_bytes}
    return f" {_SOURCES.get(next(iter(sources)), '')}".rstrip() if len(sources) == 1 else ""


def _most(rows: Sequence[RankRow]) -> str:
    peaks = {row.rank: row.peak_memory_bytes for row in rows if row.peak_memory_bytes}
    return f"; the largest on rank {max(peaks, key=lambda rank: (peaks[rank], -rank))}" if len(peaks) > 1 else ""
