"""The ranks at each coordinate, for jobs with more ranks than the Ranks block shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from distprof.merge.report import RankRow, Report
from distprof.merge.text.blocks.ranks import ALL_UP_TO
from distprof.merge.text.format.lines import heading, table, wrapped
from distprof.merge.wording import number_spans, pluralise

_PLACES_SHOWN = 32
_WIDTH = 72


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
            yield from _table(report.ranks, own)


def _table(rows: Sequence[RankRow], axes: Sequence[str]) -> Iterator[str]:
    places: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        places.setdefault(tuple(row.coordinates.get(axis, 0) for axis in axes), []).append(row.rank)
    shown = sorted(places)[:_PLACES_SHOWN]
    cells = [[*map(str, place), str(len(places[place])), all_ranks(places[place])] for place in shown]
    yield from table([*axes, "count", "ranks"], cells, left=["ranks"])
    if len(shown) < len(places):
        yield f"and {pluralise(len(places) - len(shown), 'more place')}."


def all_ranks(ranks: Sequence[int]) -> str:
    """Returns ``0-7``, or ``0, 8, ..., 504`` for ranks at equal distances; other long lists are cut."""
    distances = {after - before for before, after in pairwise(ranks)}
    if len(ranks) > 3 and len(distances) == 1 and distances != {1}:
        return f"{ranks[0]}, {ranks[1]}, ..., {ranks[-1]}"
    text = number_spans(ranks)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH].rpartition(', ')[0]}, ..."
