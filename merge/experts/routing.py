"""Where the tokens of one MoE layer were sent, over the ranks whose tokens they are.

Every token counts once: ranks of one tensor-parallel group that route the same tokens say the same, and only the lowest
recorded one of them counts; under sequence parallel each routes tokens of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedRank
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.records import Array, ExpertLayer, ExpertRouting


@dataclass(frozen=True, eq=False)
class Source:
    """What one rank's router said of its own tokens, step by step."""

    rank: int
    layer: ExpertLayer
    group: tuple[int, ...]  # the rank's place but for tp: others of it may route the same tokens
    iterations: tuple[int, ...]
    routed: IntArray  # (iterations, experts)
    dropped: IntArray | None  # None where that is not known
    aux_loss: float | None  # mean over the calls of the router

    def at(self, iterations: Sequence[int]) -> IntArray:
        return self.routed[np.isin(self.iterations, iterations)]

    def dropped_at(self, iterations: Sequence[int]) -> IntArray | None:
        return None if self.dropped is None else self.dropped[np.isin(self.iterations, iterations)]


@dataclass(frozen=True, eq=False)
class Routing:
    """Of one layer, sums over ranks and steps by global expert; ``kept`` is None where drops were not seen."""

    routed: IntArray
    kept: IntArray | None
    aux_loss: float | None


def token_sources(data: RankData, window: Window | None, layout: JobTopology) -> Iterator[Source | None]:
    """Yields one source for each layer of the rank; None where its routing was not seen in any step."""
    group = layout.piece(data.rank, ("dp", "cp", "pp"))
    told: list[list[_Told]] = [[] for _ in data.layers]
    for record in window.routings if window else ():
        for number, one in _told(record, data.layers):
            told[number].append(one)
    for layer, records in zip(data.layers, told, strict=True):
        yield _source(data.rank, layer, group, records) if records else None


def layer_routing(
    sources: Sequence[Source], counted: Mapping[int, CountedRank], iterations: Sequence[int], experts: int
) -> Routing:
    """Of all ``sources`` of one layer, over steps that all of them have."""
    distinct = _distinct(sources, counted)
    routed = np.zeros(experts, np.int64)
    dropped = np.zeros(experts, np.int64)
    known = True
    for source in distinct:
        chosen, lost = source.at(iterations), source.dropped_at(iterations)
        routed[: chosen.shape[1]] += chosen.sum(axis=0, dtype=np.int64)
        known = known and lost is not None
        if lost is not None:
            dropped[: lost.shape[1]] += lost.sum(axis=0, dtype=np.int64)
    losses = [source.aux_loss for source in distinct if source.aux_loss is not None and np.isfinite(source.aux_loss)]
    return Routing(routed, routed - dropped if known else None, sum(losses) / len(losses) if losses else None)


def common_iterations(sources: Sequence[Source]) -> set[int]:
    return set.intersection(*(set(source.iterations) for source in sources)) if sources else set()


@dataclass(frozen=True, eq=False)
class _Told:
    """What one record says of one layer."""

    iteration: int
    routed: Array
    dropped: Array | None  # None where that is not known
    losses: tuple[float, int]  # (sum, calls)


def _told(record: ExpertRouting, layers: Sequence[ExpertLayer]) -> Iterator[tuple[int, _Told]]:
    """By the number of a layer."""
    dropped = record.dropped if len(record.dropped) else np.zeros(len(record.routed), np.int64)
    losses = zip(record.aux_loss.tolist(), record.aux_calls.tolist(), strict=True)
    known, start = frozenset(record.drops_known), 0
    for number in record.layers:
        part = slice(start, start + layers[number].num_experts)
        start = part.stop
        lost = dropped[part] if number in known else None
        yield number, _Told(record.iteration, record.routed[part], lost, next(losses, (0.0, 0)))


def _source(rank: int, layer: ExpertLayer, group: tuple[int, ...], told: Sequence[_Told]) -> Source:
    dropped = [one.dropped for one in told if one.dropped is not None]
    calls = sum(count for _, count in (one.losses for one in told))
    return Source(
        rank=rank,
        layer=layer,
        group=group,
        iterations=tuple(one.iteration for one in told),
        routed=np.stack([one.routed for one in told]),
        dropped=np.stack(dropped) if len(dropped) == len(told) else None,
        aux_loss=sum(loss for loss, _ in (one.losses for one in told)) / calls if calls else None,
    )


def _distinct(sources: Sequence[Source], counted: Mapping[int, CountedRank]) -> list[Source]:
    groups: dict[tuple[int, ...], list[Source]] = {}
    for source in sources:
        groups.setdefault(source.group, []).append(source)
    return [source for group in groups.values() for source in (group[:1] if _same_tokens(group, counted) else group)]


def _same_tokens(group: Sequence[Source], counted: Mapping[int, CountedRank]) -> bool:
    first = group[0]
    one = counted.get(first.rank)
    if len(group) > 1 and one is not None and one.routes_own_tokens(first.layer):
        return False
    together = sorted(common_iterations(group))
    return all(np.array_equal(first.at(together), other.at(together)) for other in group[1:])
