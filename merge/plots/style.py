"""Shared by all plots: colours that colour-blind readers can distinguish, fonts, ticks, and files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from distprof.merge.arrays import FloatArray
from distprof.merge.report import RankVerdict, Report
from distprof.merge.text.format.lines import one_line
from distprof.merge.text.format.shortening import shortened_apart

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/
BLUE, SKY, GREEN, ORANGE, PURPLE, YELLOW, GREY = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#F0E442",
    "#8C8C8C",
)
#: The colour of each phase of records.PHASES, the same in all plots.
PHASES = {
    "data": ORANGE,
    "forward": BLUE,
    "outside": YELLOW,
    "backward": SKY,
    "optimizer": GREEN,
    "evaluation": PURPLE,
    "other": GREY,
}
INK, FAINT, NOTHING = "#1F2933", "#5F6B7A", "#DDE1E6"

Drawn = TypeVar("Drawn", bound=Artist)

#: With more rows or columns, several share one: a line thinner than a pixel might not be drawn.
MOST_CELLS = 256
_DPI = 150
_VECTORS_UP_TO = 128  # parts of an artist
_MOST_TICKS = 32
_FEW_TICKS = 12
_SEPARATE_UP_TO = 64
_LABEL_LENGTH = 30
_LAYER_TICKS = 24
#: The share of a colour scale from its middle, beyond which black letters cannot be read.
READABLE = 0.33
_LETTERS_AN_INCH = 15.5  # of the line below the title
_LABEL_LETTERS_AN_INCH = 13.0
#: The letters of a label for which there is always room.
_SHORT_LABEL = 4
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names may contain dollar signs
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E7EB",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "distprof",
}
#: A viewer without this font would use a default with serifs; Verdana has nearly the same width.
_FONT_FALLBACK = (b"font-family: 'DejaVu Sans'", b"font-family: 'DejaVu Sans', Verdana, sans-serif")
_NO_PNG_METADATA: Any = {"Software": None}
_NO_SVG_METADATA: Any = {"Date": None, "Creator": None, "Format": None, "Type": None}


def files_of(name: str, make: Callable[[], Figure | None]) -> dict[str, bytes]:
    """Returns the files of the figure by name, one for each format; none where ``make`` returns None.

    The canvases are called directly, because ``savefig`` would draw everything twice.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        figure = make()
        if figure is None:
            return {}
        png, svg = io.BytesIO(), io.BytesIO()
        agg: Any = FigureCanvasAgg(figure)
        agg.print_png(png, metadata=_NO_PNG_METADATA)  # lays the figure out as it draws
        figure.set_layout_engine("none")
        vector: Any = FigureCanvasSVG(figure)
        vector.print_svg(svg, metadata=_NO_SVG_METADATA)
        return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue().replace(*_FONT_FALLBACK)}


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure of a size in inches with one pair of axes, with a layout that cuts no label."""
    figure = _empty_figure(width, height)
    return figure, figure.add_subplot()


def new_panels(width: float, height: float, rows: int) -> tuple[Figure, list[Axes]]:
    """Returns a figure of a size in inches with axes one above the other, which share the horizontal axis."""
    figure = _empty_figure(width, height)
    return figure, list(figure.subplots(rows, 1, sharex=True))


def _empty_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _inches_right_of_labels(axes: Axes) -> float:
    """Returns the width of the figure without the labels of the rows, which have been set by now."""
    figure = axes.get_figure()
    width = figure.get_figwidth() if isinstance(figure, Figure) else 6.0
    longest = max((len(label.get_text()) for label in axes.get_yticklabels()), default=0)
    return width - max(0, longest - _SHORT_LABEL) / _LABEL_LETTERS_AN_INCH


def title(axes: Axes, words: str, report: Report, detail: str) -> None:
    """Writes the title, and below it the run and the details, folded to the width of the figure."""
    run = report.run
    recorded = f"{len(run.ranks)} of {run.world_size} ranks" if run.world_size > 1 else "1 rank"
    letters = max(40, int(_LETTERS_AN_INCH * (_inches_right_of_labels(axes) - 0.8)))
    lines = textwrap.wrap(f"{one_line(run.name)}, {recorded}: {detail}", letters)
    # With y, matplotlib does not look for a place above all labels each time it draws: no axis has labels at the top.
    axes.set_title("\n".join(lines), loc="left", fontsize=8.5, color=FAINT, pad=8, y=1.0)
    place = (0, 11 + 12 * len(lines))
    axes.annotate(
        words, (0, 1), place, xycoords="axes fraction", textcoords="offset points", fontsize=12, fontweight="bold"
    )


def heat_map(figure: Figure, axes: Axes, values: FloatArray, colours: tuple[str, Normalize], label: str) -> Colorbar:
    """Draws a heat map of ``values`` (rows, columns), with grey cells for NaN, and returns its colour bar."""
    shades = mpl.colormaps[colours[0]](np.linspace(0.06, 0.94, 256))  # without the ends, which are too dark for text
    colour_map = ListedColormap(shades).with_extremes(bad=NOTHING)
    image = axes.imshow(values, cmap=colour_map, norm=colours[1], aspect="auto", interpolation="none")
    _separate_cells(axes, values.shape)
    axes.spines[:].set_visible(False)
    return figure.colorbar(image, ax=axes, label=label, pad=0.02, aspect=max(12.0, 5.5 * float(figure.get_figheight())))


def _separate_cells(axes: Axes, shape: tuple[int, ...]) -> None:
    rows, columns = shape
    lines = []
    if rows <= _SEPARATE_UP_TO:
        lines += [((-0.5, place + 0.5), (columns - 0.5, place + 0.5)) for place in range(rows - 1)]
    if columns <= _SEPARATE_UP_TO:
        lines += [((place + 0.5, -0.5), (place + 0.5, rows - 0.5)) for place in range(columns - 1)]
    axes.add_collection(LineCollection(lines, colors="white", linewidths=1.0), autolim=False)
    axes.tick_params(length=0)


def frame(axes: Axes, row: int, column: int) -> None:
    """Frames a cell of a heat map, above the lines between cells, and over the edge of the map."""
    rectangle = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.4, zorder=2.5)
    rectangle.set_clip_on(False)
    axes.add_patch(rectangle)


def rasterised(artist: Drawn, parts: int) -> Drawn:
    """Returns an artist of so many parts; of many, it is drawn as pixels in vector files, which stay small."""
    artist.set_rasterized(parts > _VECTORS_UP_TO)
    return artist


def bars(low: FloatArray, high: FloatArray, width: float) -> list[list[tuple[float, float]]]:
    """Returns the rectangles of vertical bars at 0, 1, ..., from ``low`` to ``high``."""
    ends = enumerate(zip(low.tolist(), high.tolist(), strict=True))
    return [
        [(at - width / 2, bottom), (at - width / 2, top), (at + width / 2, top), (at + width / 2, bottom)]
        for at, (bottom, top) in ends
    ]


def bar_lines(axes: Axes, heights: FloatArray, width: float, label: str) -> None:
    """Draws a line over each bar at 0, 1, ...; of bars without gaps, one line over all.  NaN has none."""
    if width >= 1:
        axes.step(np.arange(len(heights)), heights, color=INK, linewidth=0.8, where="mid", label=label)
        return
    lines = [[(at - width / 2, top), (at + width / 2, top)] for at, top in enumerate(heights) if not np.isnan(top)]
    axes.add_collection(LineCollection(lines, color=INK, linewidth=1.2, label=label))


def rank_limits(count: int) -> tuple[float, float]:
    """Returns the limits of an axis with so many bars; a few do not fill it."""
    room = 0.5 + 0.35 * (count < 3)
    return -room, count - 1 + room


def colour_limit(excess: FloatArray, found: RankVerdict) -> float:
    """Returns the excess at the end of a colour scale that is centred at 0: at least that from which a rank is named;
    where none is named, twice the largest, so that differences by chance are pale.
    """
    largest = max(float(np.nanmax(np.abs(excess))), found.slow_share * (found.iteration_ns or 0.0), 1.0)
    return largest if found.named else 2 * largest


def shared_columns(cells: FloatArray) -> tuple[FloatArray, int]:
    """Returns (rows, at most MOST_CELLS columns) with the values furthest from 0 of neighbouring columns, and how many
    share one.
    """
    together = -(-cells.shape[1] // MOST_CELLS)
    return (cells, 1) if together == 1 else (shared_rows(cells.T, together).T, together)


def shared_rows(cells: FloatArray, together: int) -> FloatArray:
    """Returns (rows, columns) with the values furthest from 0 of ``together`` neighbouring rows in each column."""
    lines = []
    for start in range(0, len(cells), together):
        own = cells[start : start + together]
        furthest = np.argmax(np.nan_to_num(np.abs(own)), axis=0)
        lines.append(own[furthest, np.arange(cells.shape[1])])
    return np.stack(lines)


def rank_ticks(axis: Axis, names: Sequence[int]) -> None:
    """Sets a tick for each of ``names``; where there are many, at multiples of a power of two."""
    step = 1
    while len(names) > _MOST_TICKS and len(names) > step * _FEW_TICKS:
        step *= 2
    places = range(0, len(names), step)
    axis.set_ticks(list(places), [str(names[place]) for place in places])


def short(labels: Sequence[str]) -> list[str]:
    """Returns short forms of module names for tick labels; different names stay different."""
    own = list(map(one_line, labels))
    names = shortened_apart(own, _LABEL_LENGTH)
    return [names[label] for label in own]


def layer_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Sets a tick for each layer of a map, or for some of many."""
    step = -(-len(names) // _LAYER_TICKS)
    axes.set_yticks(list(range(0, len(names), step)), short(names[::step]))


def to_array(rows: Sequence[Sequence[float | None]]) -> FloatArray:
    """Returns rows of numbers as floats, NaN for None."""
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
