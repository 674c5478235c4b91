"""The block on long iterations: who makes each of them long, and where."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, duration
from distprof.merge.report import LONG_STEP, LongStep, Report
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import place_name, pluralise
from distprof.rank_names import rank_names

ALL_UP_TO = 32
_RANKS_WIDTH = 24
_PLACE_WIDTH = 44


def long_steps_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where no iteration is long."""
    times, steps = report.summary.iterations, report.long_steps
    if times is None or not steps:
        return
    yield heading("Long iterations")
    yield from wrapped(
        f"{len(steps)} of {times.steps} iterations took more than {LONG_STEP:g} x the median of"
        f" {duration(times.median_ns)}.  Lost is the time of these ranks in this place above the median of their own"
        " steps; the other ranks wait for them."
    )
    shown = sorted(steps, key=lambda one: -one.time_ns)[:ALL_UP_TO]
    places = shortened_apart([_place(one) for one in shown], _PLACE_WIDTH)
    rows = [_cells(one, places[_place(one)]) for one in shown]
    yield from table(["iteration", "time", "ranks", "lost", "place", "pause"], rows, ["ranks", "place", "pause"])
    if len(shown) < len(steps):
        yield f"The longest {len(shown)}; {len(steps) - len(shown)} more are in summary.json."


def _cells(one: LongStep, place: str) -> list[str]:
    ranks = "all" if one.everywhere else rank_names(one.ranks) if one.ranks else NOT_AVAILABLE
    ranks = ranks if len(ranks) <= _RANKS_WIDTH else pluralise(len(one.ranks), "rank")
    return [str(one.iteration), duration(one.time_ns), ranks, duration(one.excess_ns), place, one_line(one.pause)]


def _place(one: LongStep) -> str:
    return one_line(place_name(one.subject, one.phase)) if one.subject else NOT_AVAILABLE
