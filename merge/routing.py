"""Where the tokens of one MoE layer were sent, over the ranks whose tokens they are.

Every token counts once: ranks of one tensor-parallel group that route the same tokens say the same, and only the lowest
recorded one of them counts; under sequence parallel each routes tokens of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from distprof.merge.rankdata import RankData
from distprof.merge.replicas import Counted
from distprof.merge.topology import Layout
from distprof.merge.tree import IntArray
from distprof.records import ExpertLayer, ExpertRouting


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


def sources_of(data: RankData, mode: str, layout: Layout) -> Iterator[Source | None]:
    """One for each layer of the rank; None where its routing was not seen in any step."""
    window = data.windows.get(mode)
    group = layout.piece(data.rank, ("dp", "cp", "pp"))
    for number, layer in enumerate(data.layers):
        told = [record for record in window.routings if number in record.layers] if window else []
        yield _source(data, number, layer, group, told) if told else None


def routing_of(
    sources: Sequence[Source], counted: Mapping[int, Counted], iterations: Sequence[int], experts: int
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


def _source(
    data: RankData, number: int, layer: ExpertLayer, group: tuple[int, ...], told: Sequence[ExpertRouting]
) -> Source:
    parts = [_part(record, number, data.layers) for record in told]
    known = all(number in record.drops_known for record in told)
    losses = [_loss(record, number) for record in told]
    calls = sum(count for _, count in losses)
    return Source(
        rank=data.rank,
        layer=layer,
        group=group,
        iterations=tuple(record.iteration for record in told),
        routed=np.stack([record.routed[part] for record, part in zip(told, parts, strict=True)]),
        dropped=np.stack([_dropped(record, part) for record, part in zip(told, parts, strict=True)]) if known else None,
        aux_loss=sum(loss for loss, _ in losses) / calls if calls else None,
    )


def _part(record: ExpertRouting, number: int, layers: Sequence[ExpertLayer]) -> slice:
    """Where the layer stands in the record's arrays."""
    ends = list(accumulate(layers[one].num_experts for one in record.layers))
    at = record.layers.index(number)
    return slice(ends[at] - layers[number].num_experts, ends[at])


def _dropped(record: ExpertRouting, part: slice) -> IntArray:
    return record.dropped[part] if len(record.dropped) else np.zeros(part.stop - part.start, np.int64)


def _loss(record: ExpertRouting, number: int) -> tuple[float, int]:
    """(sum, calls)"""
    at = record.layers.index(number)
    return (float(record.aux_loss[at]), int(record.aux_calls[at])) if len(record.aux_calls) else (0.0, 0)


def _distinct(sources: Sequence[Source], counted: Mapping[int, Counted]) -> list[Source]:
    groups: dict[tuple[int, ...], list[Source]] = {}
    for source in sources:
        groups.setdefault(source.group, []).append(source)
    return [source for group in groups.values() for source in (group[:1] if _same_tokens(group, counted) else group)]


def _same_tokens(group: Sequence[Source], counted: Mapping[int, Counted]) -> bool:
    first = group[0]
    one = counted.get(first.rank)
    if len(group) > 1 and one is not None and one.routes_own_tokens(first.layer):
        return False
    together = sorted(common_iterations(group))
    return all(np.array_equal(first.at(together), other.at(together)) for other in group[1:])
