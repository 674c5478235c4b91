"""Which coordinates of the job no rank told anything about: what an incomplete union may lack.

A pipeline stage without any rank lacks all its layers; on a stage that is there, each set of axes on which ranks hold
different parameters (experts: ``ep``) must have a rank at every place.  Replicas cover each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from distprof.merge.job.topology import JobTopology
from distprof.merge.load.rank import RankData
from distprof.merge.wording import number_spans

_MOST_PLACES = 100_000


def missing_coordinates(told: Sequence[RankData], layout: JobTopology) -> tuple[str, ...]:
    """Such as ``pp 1``, or ``pp 0, ep 2-3``; ``told`` are the ranks that told their parameters."""
    stages = layout.info.sizes["pp"]
    seen = {layout.piece(data.rank, ("pp",))[0] for data in told}
    missing = [stage for stage in range(stages) if stage not in seen]
    found = [f"pp {number_spans(missing)}"] if missing and stages > 1 else []
    for split in sorted({split for data in told for split in data.parameters.splits if split}):
        found += _holes(told, layout, split, sorted(seen))
    return tuple(dict.fromkeys(found))


def _holes(told: Iterable[RankData], layout: JobTopology, split: tuple[str, ...], stages: Sequence[int]) -> list[str]:
    """Places on the axes of ``split`` where some stage that has such parameters has no rank."""
    axes = tuple(axis for axis in split if layout.info.sizes.get(axis, 1) > 1)
    sizes = [layout.info.sizes[axis] for axis in axes]
    if not axes or prod(sizes) > _MOST_PLACES:
        return []
    found = []
    for stage in stages:
        own = [
            data for data in told if layout.piece(data.rank, ("pp",)) == (stage,) and split in data.parameters.splits
        ]
        there = {layout.piece(data.rank, axes) for data in own}
        holes = [place for place in product(*map(range, sizes)) if place not in there] if own else []
        prefix = f"pp {stage}, " if layout.info.sizes["pp"] > 1 else ""
        found += [prefix + text for text in _in_words(axes, holes)]
    return found


def _in_words(axes: tuple[str, ...], places: list[tuple[int, ...]]) -> list[str]:
    """Places that differ on the last axis alone are put together."""
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
