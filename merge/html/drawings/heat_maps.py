"""The heat maps of the page: where ranks disagree, every iteration of every rank, the load of experts."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from distprof.merge.html.drawings.expert_drawings import ep_map, load_map, traffic_map
from distprof.merge.html.drawings.model import TIME, HeatMap
from distprof.merge.report import NOBODY_STANDS_OUT, RankRow, RankVerdict, Report
from distprof.merge.text.format.lines import one_line

_SHORT = {"forward": "fwd", "backward": "bwd"}


def heat_maps(report: Report) -> dict[str, HeatMap]:
    """Returns the heat maps that have data, by the names of their places on the page."""
    found = {
        "skew": _skew(report),
        "steps_by_rank": _steps_by_rank(report),
        "expert_load": load_map(report),
        "expert_ranks": ep_map(report),
        "expert_traffic": traffic_map(report),
    }
    return {name: heat_map for name, heat_map in found.items() if heat_map is not None}


def _skew(report: Report) -> HeatMap | None:
    skew, found = report.skew.map, report.verdict.ranks
    largest = max((abs(value) for row in skew.excess_ns for value in row if value is not None), default=0.0)
    if not largest:
        return None
    places = {place: column for column, place in enumerate(zip(skew.subjects, skew.phases, strict=True))}
    rows = {rank: row for row, rank in enumerate(skew.ranks)}
    what = "own time" if report.skew.has_own_times else "self time"
    return HeatMap(
        title="Where ranks disagree",
        row_title="rank",
        rows=[str(rank) for rank in skew.ranks],
        column_title="module",
        columns=[
            f"{one_line(name)} ({_SHORT.get(phase, phase)})"
            for name, phase in zip(skew.subjects, skew.phases, strict=True)
        ],
        values=skew.excess_ns,
        kind=TIME,
        value_title=f"{what} above the others of its cohort",
        scale="diverging",
        middle=0.0,
        limit=colour_limit(largest, found),
        marked=[
            (rows[one.rank], places[place])
            for one in found.named
            for place in one.places
            if place in places and one.rank in rows
        ],
        note=_skew_note(what, found),
        grey="the rank has no such module",
        links=skew.ranks,
    )


def colour_limit(largest: float, found: RankVerdict) -> float:
    """Returns the excess at the end of the colours: strong colours are for ranks that the verdict names."""
    limit = max(largest, found.slow_share * (found.iteration_ns or 0.0))
    return limit if found.named else 2 * limit


def _skew_note(what: str, found: RankVerdict) -> str:
    nobody = " No rank stands out: these differences are not remarkable." if found.finding == NOBODY_STANDS_OUT else ""
    return f"Each cell: {what} of a rank in a module, minus the median of the others of its cohort.{nobody}"


def _steps_by_rank(report: Report) -> HeatMap | None:
    rows = [row for row in report.ranks if row.step_durations_ns]
    iterations = sorted({iteration for row in rows for iteration in row.step_iterations})
    if len(rows) < 2 or len(iterations) < 2:
        return None
    values = [_of_iterations(row, iterations) for row in rows]
    every = [value for own in values for value in own if value is not None]
    middle = float(median(every))
    apart = max(abs(value - middle) for value in every)
    return HeatMap(
        title="Every iteration of every rank",
        row_title="rank",
        rows=[str(row.rank) for row in rows],
        column_title="iteration",
        columns=[str(iteration) for iteration in iterations],
        values=values,
        kind=TIME,
        value_title="time of the iteration",
        scale="diverging",
        middle=middle,
        limit=colour_limit(apart, report.verdict.ranks),
        note="Colours compare with the median of all. Ranks that wait for each other have equally long iterations.",
        grey="the rank did not time this iteration",
        links=[row.rank for row in rows],
    )


def _of_iterations(row: RankRow, iterations: Sequence[int]) -> list[float | None]:
    own = dict(zip(row.step_iterations, row.step_durations_ns, strict=True))
    return [float(own[iteration]) if iteration in own else None for iteration in iterations]
