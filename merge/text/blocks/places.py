"""The ranks at each coordinate, for jobs with more ranks than the Ranks block shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.report import RankRow, Report
from distprof.merge.text.blocks.ranks import ALL_UP_TO
from distprof.merge.text.format.lines import heading, table, wrapped
from distprof.merge.wording import number_series, pluralise
from distprof.plain import dataclass

_PLACES_SHOWN = 32
_PLACES_IN_FULL = 8


def places_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where the Ranks block has every rank, or in a job with dp only."""
    axes = [axis for axis, size in report.topology.sizes.items() if size > 1 and axis in ("pp", "tp", "cp")]
    ep = report.topology.sizes["ep"] > 1
    if len(report.ranks) <= ALL_UP_TO or not (axes or ep):
        return
    yield heading("Places")
    yield from wrapped("The recorded ranks by coordinates; summary.json has the coordinates of each rank.")
    for own in ([*axes, "mp"] if axes else [], ["ep"] if ep else []):
        if own:
            yield ""
            regular = _regular(report.ranks, [axis for axis in own if axis != "mp"])
            yield from _axes(report.ranks, regular) if regular else _table(report.ranks, own)


@dataclass(frozen=True)
class _Regular:
    """An axis whose coordinate is ``rank // stride % size`` on all ranks."""

    axis: str
    stride: int
    size: int

    def origin(self, rank: int) -> int:
        """Returns the rank with coordinate 0 of the group of ``rank``."""
        return rank - rank // self.stride % self.size * self.stride


def _regular(rows: Sequence[RankRow], axes: Sequence[str]) -> list[_Regular]:
    """Returns the axes, where there are many places and each coordinate follows from the rank; else none."""
    coordinates = {axis: [row.coordinates.get(axis, 0) for row in rows] for axis in axes}
    if len(set(zip(*coordinates.values(), strict=True))) <= _PLACES_IN_FULL:
        return []
    ranks = [row.rank for row in rows]
    found = [_regular_axis(axis, ranks, own) for axis, own in coordinates.items()]
    return [] if None in found else [one for one in found if one is not None]


def _regular_axis(axis: str, ranks: Sequence[int], coordinates: Sequence[int]) -> _Regular | None:
    stride = next((rank for rank, own in zip(ranks, coordinates, strict=True) if own), 1)
    size = max(coordinates) + 1
    fits = all(rank // stride % size == own for rank, own in zip(ranks, coordinates, strict=True))
    return _Regular(axis, stride, size) if fits else None


def _axes(rows: Sequence[RankRow], axes: Sequence[_Regular]) -> Iterator[str]:
    """Yields one line for each axis: how ranks follow each other on it."""
    recorded = [row.rank for row in rows]
    yield from wrapped("The coordinate of a rank on an axis is rank // stride % size.")
    group = f"group of rank {recorded[0]}"
    cells = []
    for one in axes:
        members = [rank for rank in recorded if one.origin(rank) == one.origin(recorded[0])]
        cells.append([one.axis, str(one.size), str(one.stride), number_series(members)])
    yield from table(["axis", "size", "stride", group], cells, left=["axis", group])


def _table(rows: Sequence[RankRow], axes: Sequence[str]) -> Iterator[str]:
    places: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        places.setdefault(tuple(row.coordinates.get(axis, 0) for axis in axes), []).append(row.rank)
    shown = sorted(places)[:_PLACES_SHOWN]
    cells = [[*map(str, place), str(len(places[place])), number_series(places[place])] for place in shown]
    yield from table([*axes, "count", "ranks"], cells, left=["ranks"])
    if len(shown) < len(places):
        yield f"and {pluralise(len(places) - len(shown), 'more place')}."
