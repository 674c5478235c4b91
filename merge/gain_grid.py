"""What an iteration would gain at each place: pp x dp, tp x dp, or host x rank of the host.

the places of the ranks -> for each place a replay with its ranks at the median of their cohort -> gain
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from distprof.merge.analysis import Analysis
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.collectives.waits import collective_waits
from distprof.merge.report import GainGrid
from distprof.merge.skew.excess import cohort_excesses
from distprof.merge.skew.step_times import WHOLE
from distprof.merge.skew.what_if import cost_of, replayed
from distprof.merge.stats import middle, to_number

#: The replays of all places together have at most so many collectives, which takes seconds.
MOST_REPLAYED = 1_000_000

Place = tuple[int, int]


def gain_grid(analysis: Analysis) -> GainGrid:
    """Returns the grid; an empty one where own times are not known, or the job has no two coordinates."""
    if why_no_own_times(analysis) or len(analysis.timed_windows) < 2:
        return GainGrid()
    axes, names, places = _places(analysis)
    if not places:
        return GainGrid()
    rows, columns = range(1 + max(row for row, _ in places)), range(1 + max(column for _, column in places))
    waits = collective_waits(analysis)
    few = waits is not None and len(waits.entries) * len(places) <= MOST_REPLAYED
    by_replay = few and replayed(analysis) is not None
    found = _replayed_gains(analysis, places) if by_replay else _excesses(analysis, places)
    return GainGrid(
        row_axis=axes[0],
        column_axis=axes[1],
        rows=tuple(names or map(str, rows)),
        columns=tuple(map(str, columns)),
        ranks=tuple(tuple(tuple(places.get((row, column), ())) for column in columns) for row in rows),
        gain_ns=tuple(tuple(found.get((row, column)) for column in columns) for row in rows),
        by_replay=by_replay,
    )


def _places(analysis: Analysis) -> tuple[tuple[str, str], list[str], dict[Place, list[int]]]:
    """Returns (the two axes, names of the rows where they have some, the ranks by place)."""
    sizes, found = analysis.layout.info.sizes, dict[Place, list[int]]()
    for axis in ("pp", "tp"):
        if sizes[axis] > 1 and sizes["dp"] > 1:
            for rank in analysis.timed_windows:
                at = analysis.layout.coordinates[rank]
                found.setdefault((at[axis], at["dp"]), []).append(rank)
            return (axis, "dp"), [], found
    hosts: dict[str, int] = {}
    filled: Counter[int] = Counter()  # by row
    for data in analysis.ranks:
        if data.rank in analysis.timed_windows:
            row = hosts.setdefault(data.header.host, len(hosts))
            found[row, filled[row]] = [data.rank]
            filled[row] += 1
    return ("host", "local rank"), list(hosts), found if len(hosts) > 1 else {}


def _replayed_gains(analysis: Analysis, places: Mapping[Place, Sequence[int]]) -> dict[Place, float | None]:
    costs = {place: cost_of(analysis, ranks) for place, ranks in places.items()}
    alone = {place for place, ranks in places.items() if not _comparable(analysis, ranks)}
    return {place: None if cost is None or place in alone else cost.cost_ns for place, cost in costs.items()}


def _comparable(analysis: Analysis, ranks: Sequence[int]) -> bool:
    """Returns whether each rank has others in its cohort that are not at the same place."""
    others = {analysis.cohorts[rank] for rank in analysis.timed_windows if rank not in set(ranks)}
    return all(analysis.cohorts[rank] in others for rank in ranks)


def _excesses(analysis: Analysis, places: Mapping[Place, Sequence[int]]) -> dict[Place, float | None]:
    own: dict[int, float] = {}
    for excess in cohort_excesses(analysis):
        (whole,) = (number for number, place in enumerate(excess.times.places) if place.level == WHOLE)
        own.update(zip(excess.times.ranks, excess.median[whole].tolist(), strict=True))
    return {place: to_number(float(middle([own[rank] for rank in ranks]))) for place, ranks in places.items()}
