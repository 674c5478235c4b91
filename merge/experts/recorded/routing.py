"""Which experts the routers of one MoE layer chose, over all ranks.

Every token counts once.  Ranks of one tensor-parallel group that route the same tokens have equal records, and only the
lowest recorded one of them counts; under sequence parallel each rank routes tokens of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.merge.experts.recorded.same_tokens import distinct
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedWork
from distprof.merge.load.rank import RankData
from distprof.merge.load.window import Window
from distprof.plain import dataclass
from distprof.records import Array, ExpertLayer, LayerRouting

#: (iteration, what the router of a layer chose in it)
_LayerStep = tuple[int, LayerRouting]


@dataclass(frozen=True, eq=False)
class RoutedTokens:
    """The choices of one rank's router in one layer, step by step."""

    rank: int
    layer: ExpertLayer
    group: tuple[int, ...]  # coordinates on dp, cp and pp: ranks of one group may route the same tokens
    iterations: tuple[int, ...]
    routed: IntArray  # (iterations, experts)
    dropped: IntArray | None  # (iterations, experts), None where drops are not known
    lost: IntArray  # (iterations,): dropped choices that ``routed`` lacks, because their expert is not known
    aux_loss: float | None  # mean over the calls of the router
    handed: bool  # ``routed`` has what experts were handed: no choice that was dropped before
    kept_by_call: Mapping[int, IntArray]  # by iteration (calls, experts), where the layer was called more than once
    capacity: IntArray  # (iterations,): choices that one expert can take; 0 without a limit, or where it is not known

    def at(self, iterations: Sequence[int]) -> IntArray:
        """Returns ``routed`` for the given iterations only, (iterations, experts)."""
        return self.routed[np.isin(self.iterations, iterations)]

    def dropped_at(self, iterations: Sequence[int]) -> IntArray | None:
        """Returns ``dropped`` for the given iterations only, (iterations, experts)."""
        return None if self.dropped is None else self.dropped[np.isin(self.iterations, iterations)]

    def kept_at(self, iterations: Sequence[int]) -> IntArray | None:
        """Returns the choices that were not dropped, (iterations, experts), for the given iterations only; None where
        these are not known.
        """
        if self.handed:
            return self.at(iterations).astype(np.int64)
        dropped = self.dropped_at(iterations)
        return None if dropped is None else self.at(iterations).astype(np.int64) - dropped

    def capacity_at(self, iterations: Sequence[int]) -> int | None:
        """Returns how many choices one expert can take in the given iterations; None where that is not known, and where
        an expert took more.
        """
        kept, own = self.kept_at(iterations), self.capacity[np.isin(self.iterations, iterations)]
        fits = kept is not None and bool((own > 0).all() and (kept <= own[:, None]).all())
        return int(own.sum()) if fits and len(own) else None

    def lost_at(self, iterations: Sequence[int]) -> IntArray:
        """Returns ``lost`` for the given iterations only, (iterations,)."""
        return self.lost[np.isin(self.iterations, iterations)]


@dataclass(frozen=True, eq=False)
class Routing:
    """The routing of one layer, summed over ranks and steps by global expert; ``kept`` is None where it is not known.

    ``lost``: dropped choices that ``routed`` lacks.  ``handed``: it also lacks what a source may have dropped unseen.
    ``capacity``: choices that one expert can take; None where that is not known.
    """

    routed: IntArray
    kept: IntArray | None
    lost: int
    aux_loss: float | None
    handed: bool
    capacity: int | None


def routed_tokens(data: RankData, window: Window | None, layout: JobTopology) -> Iterator[RoutedTokens | None]:
    """Yields one item for each layer of the rank; None where no step has its routing."""
    group = layout.piece(data.rank, ("dp", "cp", "pp"))
    steps: list[list[_LayerStep]] = [[] for _ in data.layers]
    for record in window.routings if window else ():
        for one in record.layers:
            steps[one.layer].append((record.iteration, one))
    for layer, own in zip(data.layers, steps, strict=True):
        yield _join_steps(data.rank, layer, group, own) if own else None


def layer_routing(every: Sequence[RoutedTokens], iterations: Sequence[int], experts: int) -> Routing:
    """Returns the sums over ``every`` source of distinct tokens of one layer; all of them have the ``iterations``."""
    routed = np.zeros(experts, np.int64)
    kept = np.zeros(experts, np.int64)
    known = True
    for source in every:
        chosen, left = source.at(iterations), source.kept_at(iterations)
        routed[: chosen.shape[1]] += chosen.sum(axis=0, dtype=np.int64)
        known = known and left is not None
        if left is not None:
            kept[: left.shape[1]] += left.sum(axis=0, dtype=np.int64)
    losses = [source.aux_loss for source in every if source.aux_loss is not None and np.isfinite(source.aux_loss)]
    lost = sum(int(source.lost_at(iterations).sum()) for source in every)
    aux_loss = sum(losses) / len(losses) if losses else None
    limits = [source.capacity_at(iterations) for source in every]
    capacity = sum(limit for limit in limits if limit is not None) if None not in limits else None
    return Routing(routed, kept if known else None, lost, aux_loss, any(source.handed for source in every), capacity)


def distinct_sources(sources: Sequence[RoutedTokens], counted: Mapping[int, CountedWork]) -> list[RoutedTokens]:
    """Returns the sources without those that routed the same tokens as another one."""
    return distinct(sources, lambda source: source.group, counted)


def _join_steps(rank: int, layer: ExpertLayer, group: tuple[int, ...], steps: Sequence[_LayerStep]) -> RoutedTokens:
    rows = [row for _, row in steps]
    calls = sum(row.aux_calls for row in rows)
    return RoutedTokens(
        rank=rank,
        layer=layer,
        group=group,
        iterations=tuple(iteration for iteration, _ in steps),
        routed=np.stack([row.routed for row in rows]),
        dropped=np.stack([_dropped(row) for row in rows]) if all(row.drops_known for row in rows) else None,
        lost=np.array([row.lost for row in rows], np.int64),
        aux_loss=float(sum(row.aux_loss.sum() for row in rows)) / calls if calls else None,
        handed=all(row.handed for row in rows),
        kept_by_call={
            iteration: row.kept_by_call.reshape(-1, len(row.routed)).astype(np.int64)
            for iteration, row in steps
            if len(row.kept_by_call)
        },
        capacity=np.array([row.capacity for row in rows], np.int64),
    )


def _dropped(row: LayerRouting) -> Array:
    """Returns the dropped choices by expert, of a row that knows them."""
    return row.dropped if len(row.dropped) else np.zeros_like(row.routed)
