"""A map of the modules of one process: each is as wide as its forward and backward, and lies below the one it is in.

What a module takes itself, without the modules inside it, is the blank part below it.  Runs of several ranks have the
skew map instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit
from distprof.merge.report import ModuleStats, Report
from distprof.merge.text.format.lines import one_line

_MOST_LEVELS = 10
_LEAST_SHARE = 0.002  # of the whole: narrower modules are drawn as part of the one that they are in
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.SKY, style.PURPLE, style.YELLOW)
_LETTER = 0.062  # inches, of the font of the labels
_WIDTH = 10.0
_DARK = {style.BLUE, style.GREEN}


@dataclass(frozen=True)
class Cell:
    """One module of the map; times in ns."""

    index: int  # in Report.modules
    level: int
    start_ns: float
    length_ns: float


def draw(report: Report) -> Figure | None:
    """Returns the map; None with several ranks, or where no module was timed."""
    cells = map_cells(report.modules) if len(report.ranks) == 1 else []
    if not cells:
        return None
    whole = max(cell.start_ns + cell.length_ns for cell in cells)
    unit = common_unit([whole])
    levels = 1 + max(cell.level for cell in cells)
    figure, axes = style.new_figure(_WIDTH, 1.9 + 0.36 * levels)
    colours = _class_colours(report.modules, cells)
    for cell in cells:
        _draw(axes, cell, report.modules[cell.index], colours, unit, whole)
    axes.set(xlim=(0, whole / unit.ns), ylim=(levels, 0), xlabel=f"forward and backward of one iteration ({unit.name})")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    handles = [Patch(facecolor=colour, label=one_line(name)) for name, colour in colours.items()]
    if len({report.modules[cell.index].class_name for cell in cells}) > len(colours):
        handles.append(Patch(facecolor=style.NOTHING, label="other classes"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
    detail = "each module lies below the one it is in; blank: what the module above takes itself"
    style.title(axes, "Where the modules' time goes", report, detail)
    return figure


def map_cells(modules: Sequence[ModuleStats]) -> list[Cell]:
    """Returns the modules that are wide enough to be drawn, parents before what is inside them."""
    times = [(module.forward_ns or 0.0) + (module.backward_ns or 0.0) for module in modules]
    whole = sum(time for time, module in zip(times, modules, strict=True) if module.parent < 0)
    cells: list[Cell] = []
    found: dict[int, Cell] = {}  # by index of the module
    free: dict[int, float] = {-1: 0.0}  # where the next module inside begins, by index of the parent
    for index, module in enumerate(modules):
        above = found.get(module.parent)
        level = 0 if above is None else above.level + 1
        drawn = (module.parent < 0 or above is not None) and level < _MOST_LEVELS
        start = free.get(module.parent, 0.0)
        length = times[index] if above is None else min(times[index], above.start_ns + above.length_ns - start)
        if drawn and length > _LEAST_SHARE * whole:
            found[index] = Cell(index, level, start, length)
            cells.append(found[index])
            free[module.parent], free[index] = start + length, start
    return cells


def _class_colours(modules: Sequence[ModuleStats], cells: Sequence[Cell]) -> dict[str, str]:
    """Returns a colour for the classes of largest self time, and of the cells that are drawn."""
    own: dict[str, float] = {}
    for cell in cells:
        module = modules[cell.index]
        time = (module.forward_self_ns or 0.0) + (module.backward_self_ns or 0.0)
        own[module.class_name] = own.get(module.class_name, 0.0) + time
    return dict(zip(sorted(own, key=lambda name: -own[name]), _COLOURS, strict=False))


def _draw(
    axes: Axes, cell: Cell, module: ModuleStats, colours: dict[str, str], unit: TimeUnit, whole_ns: float
) -> None:
    colour = colours.get(module.class_name, style.NOTHING)
    start, length = cell.start_ns / unit.ns, cell.length_ns / unit.ns
    axes.add_patch(Rectangle((start, cell.level), length, 1, facecolor=colour, edgecolor="white", linewidth=1.0))
    room = int(cell.length_ns / whole_ns * (_WIDTH - 0.6) / _LETTER) - 1
    name = one_line(module.name.rpartition(".")[2] or module.class_name)
    inside = f"{name} {unit.format(cell.length_ns)}"
    text = inside if len(inside) <= room else name if len(name) <= room else ""
    if not text:
        return
    ink = "white" if colour in _DARK else style.INK
    axes.text(start + length / 2, cell.level + 0.5, text, ha="center", va="center", fontsize=7.5, color=ink)
