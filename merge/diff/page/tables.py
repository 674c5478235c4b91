"""The tables of the page, from the sections of the comparison."""

from __future__ import annotations

from distprof.merge.diff.data import LESS, MORE, Diff, Figure, PlaceChange
from distprof.merge.diff.sentences import judgement, values
from distprof.merge.html.drawings.model import BYTES, INTERVAL, NUMBER, TIME, Column, Interval, Table
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import place_name

#: How an interval is coloured.
_COST, _GAIN, _NOISE = "cost", "gain", "noise"


def tables(diff: Diff) -> dict[str, Table]:
    """Returns the tables that have rows, by the names of their places on the page."""
    found = {
        "setup": _setup(diff),
        "figures": _figures(diff),
        "places": _places(diff),
        "collectives": _collectives(diff),
        "work": _work(diff),
    }
    return {name: table for name, table in found.items() if table.rows}


def _setup(diff: Diff) -> Table:
    columns = (Column("what"), Column("first run"), Column("second run"), Column("what it means", wide=True))
    rows = [[one_line(text) for text in (one.what, one.first, one.second, one.effect)] for one in diff.setup]
    return Table("What the runs were started with", columns, rows)


def _figures(diff: Diff) -> Table:
    columns = (
        Column("figure"),
        Column("first run"),
        Column("second run"),
        Column("change, and what chance allows", INTERVAL, why="a run has no such figure"),
        Column("finding"),
    )
    rows = [[one.name, *values(one), _interval(one, _figure_side(one)), judgement(one)] for one in diff.figures]
    note = "The bar spans what chance allows, at 99 %, the point is the change. A bar that reaches 0 is noise."
    return Table("Figures of the whole job", columns, rows, note=note)


def _places(diff: Diff) -> Table:
    what = "own time, without waits in collectives," if diff.places.without_waits else "self time"
    columns = (
        Column("where"),
        Column("first run", TIME, "self time"),
        Column("second run", TIME, "self time"),
        Column("change, and what chance allows", INTERVAL),
        Column("costs an iteration", TIME, signed=True),
        Column("finding"),
    )
    rows = [
        [
            one_line(place_name(one.subject, one.phase)),
            one.first_ns,
            one.second_ns,
            _interval(one, _place_side(one)),
            one.cost_ns,
            judgement(one),
        ]
        for one in diff.places.changes
    ]
    marked = [row for row, one in enumerate(diff.places.changes) if one.finding in (MORE, LESS)]
    note = (
        f"The {what} of one iteration: of modules the lower quartile of the steps, and of phases outside modules the "
        "median. Changes of modules are relative to what all of them have in common. Bars to the right cost time, bars "
        "to the left gain it."
    )
    return Table("Modules and phases, the largest cost or gain first", columns, rows, marked, note=note)


def _collectives(diff: Diff) -> Table:
    columns = (
        Column("collective"),
        Column("group"),
        Column("calls, first", NUMBER),
        Column("calls, second", NUMBER),
        Column("bytes, first", BYTES),
        Column("bytes, second", BYTES),
        Column("first run", TIME, "transfer"),
        Column("second run", TIME, "transfer"),
        Column("costs an iteration", TIME, signed=True),
    )
    rows = [
        [
            one_line(one.op),
            one_line(one.kind),
            one.first_calls,
            one.second_calls,
            one.first_bytes,
            one.second_bytes,
            one.first_ns,
            one.second_ns,
            one.cost_ns,
        ]
        for one in diff.collectives
    ]
    note = "Times are wait and transfer of one rank in one iteration; their noise is not known."
    return Table("Collectives, the largest cost or gain first", columns, rows, note=note)


def _work(diff: Diff) -> Table:
    columns = (
        Column("module"),
        Column("what"),
        Column("first run", NUMBER, why="the run has no such module"),
        Column("second run", NUMBER, why="the run has no such module"),
        Column("difference", NUMBER, signed=True),
    )
    rows = [
        [one_line(one.module), one.what, one.first, one.second, (one.second or 0) - (one.first or 0)]
        for one in diff.work
    ]
    return Table("Modules whose own parameters or forward flops differ", columns, rows)


def _interval(one: Figure | PlaceChange, side: str) -> Interval | None:
    return None if one.change is None else Interval(one.change, one.low, one.high, side)


def _figure_side(one: Figure) -> str:
    if one.is_worse or one.is_better:
        return _COST if one.is_worse else _GAIN
    return _NOISE


def _place_side(one: PlaceChange) -> str:
    return {MORE: _COST, LESS: _GAIN}.get(one.finding, _NOISE)
