"""Draws the comparison as one file without a request to anywhere: the answer, then figures, places and the rest."""

from __future__ import annotations

from distprof.merge.diff.data import Diff
from distprof.merge.diff.page.cards import cards
from distprof.merge.diff.page.tables import tables
from distprof.merge.html.drawings.model import TIME, Chart, Drawings, Series
from distprof.merge.html.frame import framed
from distprof.merge.text.format.lines import one_line

_SCRIPTS = ("base", "changes", "tables", "charts", "main")
_FIRST_COLOUR, _SECOND_COLOUR = 1, 3  # of the page's palette: blue and vermilion


def render_page(diff: Diff) -> bytes:
    """Returns the page; the same comparison gives the same bytes."""
    drawings = Drawings(tables(diff), _charts(diff), {})
    first, second = one_line(diff.first), one_line(diff.second)
    return framed(
        "diff.html",
        _SCRIPTS,
        vars(drawings),
        command="diff",
        title=f"{first} and {second}",
        facts=[("first run", first), ("second run", second)],
        cards=cards(diff),
        notes=[one_line(note) for note in _notes(diff)],
        drawings=drawings,
    )


def _charts(diff: Diff) -> dict[str, Chart]:
    """Returns the iterations of both runs, side by side by their place in the run."""
    longest = max(map(len, diff.iterations_ns))
    if longest < 2:
        return {}
    series = [
        Series(name, [*times, *[None] * (longest - len(times))], "line", colour)
        for name, colour, times in zip(
            ("first run", "second run"), (_FIRST_COLOUR, _SECOND_COLOUR), diff.iterations_ns, strict=True
        )
    ]
    note = (
        "Wall time of each timed iteration, the median of the ranks. Both runs start at 1; repeated ones follow each "
        "other."
    )
    return {
        "steps": Chart(
            "Iterations of both runs", "timed iteration", list(range(1, longest + 1)), TIME, series, note=note
        )
    }


def _notes(diff: Diff) -> list[str]:
    whys = [one.why for one in diff.figures if one.why]
    return list(dict.fromkeys([*diff.notes, *whys, *([diff.places.why_not] if diff.places.why_not else [])]))
