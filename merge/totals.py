"""How many parameters the model has: exactly, as a union over ranks, and by DeepSpeed's estimate.

Every rank names the pieces it holds.  A piece is (root, name, pipeline stage, the rank's coordinates on the axes on
which ranks hold different parameters under one name); replicas name the same piece and so count once, stages and
experts add up, and a piece that tensor parallelism or FSDP shards is counted by its global size.  Tied parameters
count once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distprof.merge.load import LoadedRun
from distprof.merge.rankdata import RankData
from distprof.merge.topology import Layout
from distprof.records import Parameter


@dataclass(frozen=True)
class Totals:
    """``exact`` and ``trainable`` are None when no rank recorded parameters, and lower bounds unless ``covers_all``."""

    exact: int | None
    trainable: int | None
    covers_all: bool
    per_rank: dict[int, int]  # the ranks that recorded parameters


def totals_of(run: LoadedRun, layout: Layout) -> Totals:
    pieces: dict[tuple[object, ...], Parameter] = {}
    done = set()
    for data in run.ranks:
        # Ranks with the same parameters at the same place name the same pieces: once is enough.
        place = (id(data.parameters), layout.piece(data.rank, ("pp", *data.parameters.split_axes)))
        if place not in done:
            done.add(place)
            pieces.update(_pieces(data, layout))
    numels = {data.rank: data.parameters.rank_numel for data in run.ranks}
    return Totals(
        exact=sum(p.global_numel for p in pieces.values()) if pieces else None,
        trainable=sum(p.global_numel for p in pieces.values() if p.trainable) if pieces else None,
        covers_all=not run.missing_ranks and None not in numels.values(),
        per_rank={rank: numel for rank, numel in numels.items() if numel is not None},
    )


def of_model(per_rank: Mapping[int, float], layout: Layout) -> float | None:
    """DeepSpeed's ``per GPU * mp_size``, where "per GPU" is the mean over one model-parallel group.

    It is taken over the ranks of each (tp, pp) place, then over the places, so that a missing rank does not tilt it.
    """
    places: dict[tuple[int, ...], list[float]] = {}
    for rank, value in per_rank.items():
        places.setdefault(layout.piece(rank, ("tp", "pp")), []).append(value)
    means = [sum(values) / len(values) for values in places.values()]
    return sum(means) / len(means) * layout.info.sizes["mp"] if means else None


def _pieces(data: RankData, layout: Layout) -> dict[tuple[object, ...], Parameter]:
    stage = layout.piece(data.rank, ("pp",))
    return {(p.root, p.name, stage, p.split, layout.piece(data.rank, p.split)): p for p in data.parameters.counted}
