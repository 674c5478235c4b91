"""One iteration as it was: a row for each rank, with its phases, the turns of modules, collectives and waits.

A wait ends where the rank that it waits for enters the collective: that rank is the one that has no wait there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from distprof.merge.plots import style
from distprof.merge.quantities import TimeUnit, common_unit, duration
from distprof.merge.report import RankTimeline, Report, Span, StepTimeline
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title
from distprof.records import PHASES

_WIDTH = 12.0
_NAMED_UP_TO = 8  # ranks whose modules are labelled
_LETTER = 0.058  # inches, of the labels
_AXES_SHARE = 0.88  # of the figure's width
#: The bands of a row, from its middle upwards, in rows.
_PHASES, _MODULES, _COLLECTIVES = (-0.42, -0.22), (-0.2, 0.2), (0.22, 0.4)
_MODULE_COLOURS = ("#C9D6E2", "#E2E8EF")  # neighbours differ
_WAIT, _COLLECTIVE, _PAUSE = "#FFFFFF", "#6A51A3", "#D55E00"


def draw(report: Report) -> Figure | None:
    """Returns the timeline; None where no rank has one."""
    timeline = report.timeline
    if not timeline.ranks:
        return None
    end_ns = max(span.end_ns for one in timeline.ranks for span in (*one.phases, *one.modules))
    unit = common_unit([end_ns])
    height = 2.1 + min(0.75, max(0.24, 6.0 / len(timeline.ranks))) * len(timeline.ranks)
    figure, axes = style.new_figure(_WIDTH, height)
    shown = [phase for phase in PHASES if any(span.name == phase for one in timeline.ranks for span in one.phases)]
    for phase in shown:
        _bands(axes, timeline, partial(_of_phase, phase), _PHASES, style.PHASES[phase], unit)
    _modules(axes, timeline, unit)
    _bands(axes, timeline, lambda one: one.waits, _MODULES, _WAIT, unit, hatch="//////")
    _bands(axes, timeline, lambda one: one.collectives, _COLLECTIVES, _COLLECTIVE, unit, least_ns=end_ns / 1000)
    _bands(axes, timeline, lambda one: one.pauses, _MODULES, _PAUSE, unit)
    if len(timeline.ranks) <= _NAMED_UP_TO:
        for row, one in enumerate(timeline.ranks):
            _labels(axes, row, one, unit, end_ns)
    axes.set(xlim=(0, end_ns / unit.ns), ylim=(len(timeline.ranks) - 0.5, -0.5), ylabel="rank")
    axes.set_xlabel(f"time since the first rank began the iteration ({unit.name})")
    named = {one.rank for one in report.verdict.ranks.named}
    ranks = [one.rank for one in timeline.ranks]
    axes.set_yticks(range(len(ranks)), [f"▶ {rank}" if rank in named else str(rank) for rank in ranks])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    _legend(figure, timeline, shown)
    style.title(axes, "One iteration", report, _detail(timeline, named & set(ranks)))
    return figure


def _detail(timeline: StepTimeline, named: set[int]) -> str:
    words = [f"iteration {timeline.iteration}, the nearest to the median"]
    if timeline.left_out:
        words.append(f"{len(timeline.ranks)} of {len(timeline.ranks) + timeline.left_out} ranks")
    if named:
        words.append("▶ marks slow ranks")
    if timeline.bound_ns is None:
        words.append("the clocks of hosts were not compared, so rows of different hosts may be shifted")
    elif timeline.bound_ns:
        words.append(f"rows of different hosts are exact to {duration(timeline.bound_ns)}")
    return ", ".join(words)


def _of_phase(phase: str, one: RankTimeline) -> list[Span]:
    return [span for span in one.phases if span.name == phase]


def _bands(
    axes: Axes, timeline: StepTimeline, spans_of: Callable[[RankTimeline], Iterable[Span]], band: tuple[float, float],
    colour: str, unit: TimeUnit, *, hatch: str = "", least_ns: float = 0.0,
) -> None:  # fmt: skip
    """Draws spans of all ranks as one collection; each is at least so long."""
    boxes = [
        _box(row, span.start_ns / unit.ns, max(span.end_ns, span.start_ns + least_ns) / unit.ns, band)
        for row, one in enumerate(timeline.ranks)
        for span in spans_of(one)
    ]
    if boxes:
        collection = PolyCollection(boxes, facecolor=colour, linewidth=0)
        if hatch:
            collection.set(edgecolor=style.GREY, hatch=hatch)
        axes.add_collection(style.rasterised(collection, len(boxes)))


def _modules(axes: Axes, timeline: StepTimeline, unit: TimeUnit) -> None:
    """Draws the turns of modules in two greys in turn."""
    for parity, colour in enumerate(_MODULE_COLOURS):
        _bands(axes, timeline, partial(_every_second, parity), _MODULES, colour, unit)


def _every_second(first: int, one: RankTimeline) -> Sequence[Span]:
    return one.modules[first::2]


def _box(row: int, start: float, end: float, band: tuple[float, float]) -> list[tuple[float, float]]:
    low, high = row + band[0], row + band[1]
    return [(start, low), (start, high), (end, high), (end, low)]


def _labels(axes: Axes, row: int, one: RankTimeline, unit: TimeUnit, end_ns: float) -> None:
    """Writes the names of the modules whose turns are wide enough, each from the start of its turn."""
    room = _AXES_SHARE * _WIDTH / end_ns / _LETTER  # letters a ns
    names = style.short([span.name for span in one.modules])
    waits = [wait.start_ns for wait in one.waits]
    for span, name in zip(one.modules, names, strict=True):
        free_ns = min([start for start in waits if span.start_ns <= start < span.end_ns], default=span.end_ns)
        if len(name) <= (free_ns - span.start_ns) * room - 1:
            axes.text(span.start_ns / unit.ns, row, f" {name}", va="center", fontsize=6.5, clip_on=True)


def _legend(figure: Figure, timeline: StepTimeline, phases: Sequence[str]) -> None:
    handles = [Patch(facecolor=style.PHASES[phase], label=phase_title(phase)) for phase in phases]
    kinds = (
        ("modules", Patch(facecolor=_MODULE_COLOURS[0], label="module")),
        ("waits", Patch(facecolor=_WAIT, edgecolor=style.GREY, hatch="//////", linewidth=0, label="wait in a module")),
        ("collectives", Patch(facecolor=_COLLECTIVE, label="collective, until the last member enters")),
        ("pauses", Patch(facecolor=_PAUSE, label=_pause_names(timeline))),
    )
    handles += [handle for kind, handle in kinds if any(getattr(one, kind) for one in timeline.ranks)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)


def _pause_names(timeline: StepTimeline) -> str:
    names = dict.fromkeys(one_line(span.name) for one in timeline.ranks for span in one.pauses)
    return next(iter(names), "pause") if len(names) == 1 else "pause"
