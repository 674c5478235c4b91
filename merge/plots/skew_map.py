"""A map of ranks x modules: by how much a rank's self time exceeds that of the others of its cohort.

Where waits in collectives are known, self times are without them.

The cells of the ranks that the verdict names are framed, and no others.  The colour scale reaches at least to the
excess from which a rank is named.  Where no rank is named it reaches to twice the largest excess, so that differences
by chance are pale.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from distprof.merge.plots import style
from distprof.merge.quantities import common_unit
from distprof.merge.report import NOBODY_STANDS_OUT, NOT_ENOUGH, RankVerdict, Report, SkewMap, Straggler
from distprof.merge.wording import place_name
from distprof.rank_names import rank_names

_FRAMED_UP_TO = 48
_DARK = 0.66  # share of the colour scale beyond which black cannot be read
_FINDINGS = {NOBODY_STANDS_OUT: "no rank stands out", NOT_ENOUGH: "not enough to tell who is slow"}
_SHORT_PHASES = {"forward": "fwd", "backward": "bwd"}


def draw(report: Report) -> Figure | None:
    """Returns the map; None where no rank can be compared, or there are no module times."""
    skew = report.skew.map
    excess = style.to_array(skew.excess_ns)
    if not np.any(np.nan_to_num(excess)):
        return None
    limit = style.colour_limit(excess, report.verdict.ranks)
    unit = common_unit([limit])
    together = -(-len(skew.ranks) // style.MOST_CELLS)
    lines = style.shared_rows(excess, together) / unit.ns
    figure, axes = style.new_figure(max(6.0, 3.0 + 0.42 * excess.shape[1]), min(8.5, 3.0 + 0.28 * len(lines)))
    colours = ("RdBu_r", Normalize(-limit / unit.ns, limit / unit.ns))
    style.heat_map(figure, axes, lines, colours, f"slower than the cohort ({unit.name})")
    style.rank_ticks(axes.yaxis, skew.ranks[::together])
    _columns(axes, skew)
    cells = _named_cells(skew, report.verdict.ranks)
    for one, rank, column in cells if len(lines) <= _FRAMED_UP_TO else []:
        here_ns = one.excess_ns if len(one.places) == 1 else float(excess[rank, column])
        _frame(axes, rank, column, here_ns / unit.ns, dark=here_ns > _DARK * limit)
    words = [*dict.fromkeys(f"rank {one.rank}: {one.excess_ns / unit.ns:+.1f} {unit.name}" for one, _, _ in cells)]
    if cells and len(lines) > _FRAMED_UP_TO:
        _point_at(axes, cells[0][1] // together, cells[0][2], words[0])
    sharing = f", each line the extremes of {together} ranks" if together > 1 else ""
    found = f"largest: {words[0]}" if words else _found(report.verdict.ranks)
    grey = "; grey: the rank has no such module, or no rank to compare with" if np.isnan(lines).any() else ""
    what = "own time" if report.skew.has_own_times else "self time"
    style.title(
        axes, "Where ranks disagree", report, f"{what} minus that of the others of its cohort{sharing}{grey}; {found}"
    )
    return figure


def _found(found: RankVerdict) -> str:
    """Returns in words what the map has no cell of."""
    if not found.named:
        return _FINDINGS.get(found.finding, found.finding)
    return f"{rank_names([found.named[0].rank])}: {place_name(found.named[0].subject, found.named[0].phase)}"


def _named_cells(skew: SkewMap, found: RankVerdict) -> list[tuple[Straggler, int, int]]:
    """Returns each named rank with (row, column) of the place where it is slow, where the map has it."""
    columns = {place: column for column, place in enumerate(zip(skew.subjects, skew.phases, strict=True))}
    return [
        (one, skew.ranks.index(one.rank), columns[place])
        for one in found.named
        for place in one.places
        if place in columns
    ]


def _frame(axes: Axes, line: int, column: int, value: float, *, dark: bool) -> None:
    """Frames the cell of a named rank, and writes the excess into it."""
    style.frame(axes, line, column)
    colour = "white" if dark else style.INK
    axes.text(column, line, f"{value:+.3g}", ha="center", va="center", color=colour, fontweight="bold")


def _point_at(axes: Axes, line: int, column: int, words: str) -> None:
    """Writes the excess of a named rank beside its cell, where cells are too thin to write into."""
    left = column < len(axes.get_xticks()) / 2
    axes.annotate(
        words,
        (column + (0.5 if left else -0.5), line),
        (6 if left else -6, 0),
        textcoords="offset points",
        ha="left" if left else "right",
        va="center",
        fontweight="bold",
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def _columns(axes: Axes, skew: SkewMap) -> None:
    phases = [_SHORT_PHASES.get(phase, phase) for phase in skew.phases]
    labels = [f"{name} ({phase})" for name, phase in zip(style.short(skew.subjects), phases, strict=True)]
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(ylabel="rank", xlabel="module (fwd: forward, bwd: backward), largest excess first")
