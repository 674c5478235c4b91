"""The coordinates of the job that no recorded rank covers, so that parameters may be missing from the union.

A pipeline stage without any rank lacks all its layers.  On a recorded stage, each set of axes on which ranks hold
different parameters (experts: ``ep``) must have a rank at every coordinate.  Replicas cover each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from distprof.merge.job.topology import JobTopology
from distprof.merge.load.rank import RankData
from distprof.rank_names import number_spans

_MOST_PLACES = 100_000


def missing_coordinates(recorded: Sequence[RankData], layout: JobTopology) -> tuple[str, ...]:
    """Returns texts such as ``pp 1``, or ``pp 0, ep 2-3``; ``recorded`` are the ranks that recorded parameters."""
    stages = layout.info.sizes["pp"]
    seen = {layout.piece(data.rank, ("pp",))[0] for data in recorded}
    missing = [stage for stage in range(stages) if stage not in seen]
    found = [f"pp {number_spans(missing)}"] if missing and stages > 1 else []
    for split in sorted({split for data in recorded for split in data.parameters.splits if split}):
        found += _missing_places(recorded, layout, split, sorted(seen))
    return tuple(dict.fromkeys(found))


def _missing_places(
    recorded: Iterable[RankData], layout: JobTopology, split: tuple[str, ...], stages: Sequence[int]
) -> list[str]:
    """Returns the places on the axes of ``split`` without a rank, on stages that have parameters split so."""
    axes = tuple(axis for axis in split if layout.info.sizes.get(axis, 1) > 1)
    sizes = [layout.info.sizes[axis] for axis in axes]
    if not axes or prod(sizes) > _MOST_PLACES:
        return []
    found = []
    for stage in stages:
        own = [
            data
            for data in recorded
            if layout.piece(data.rank, ("pp",)) == (stage,) and split in data.parameters.splits
        ]
        present = {layout.piece(data.rank, axes) for data in own}
        missing = [place for place in product(*map(range, sizes)) if place not in present] if own else []
        prefix = f"pp {stage}, " if layout.info.sizes["pp"] > 1 else ""
        found += [prefix + text for text in _place_names(axes, missing)]
    return found


def _place_names(axes: tuple[str, ...], places: list[tuple[int, ...]]) -> list[str]:
    """Returns the places as text; places that differ on the last axis only share one text."""
    by_rest: dict[tuple[int, ...], list[int]] = {}
    for *rest, last in places:
        by_rest.setdefault(tuple(rest), []).append(last)
    return [
        ", ".join(
            [
                *(f"{axis} {number}" for axis, number in zip(axes, rest, strict=False)),
                f"{axes[-1]} {number_spans(last)}",
            ]
        )
        for rest, last in by_rest.items()
    ]
