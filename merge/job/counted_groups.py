"""The counted work of the ranks, in groups of models on the same axes; a model on axes of its own is a group."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cached_property

from distprof.merge.arrays import FloatArray
from distprof.merge.job.stages import Pipeline, pipeline_position
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedWork, Shape
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.plain import dataclass
from distprof.records import Counts


@dataclass(frozen=True)
class CountedGroup:
    """The counted work of models on the same axes, by rank."""

    layout: JobTopology
    ranks: dict[int, CountedWork]  # ranks that counted the same share an object
    pipelines: Mapping[int, Pipeline]  # on the axes of these models

    @cached_property
    def shares(self) -> dict[int, FloatArray]:
        """Returns by rank, by row of its tree, the share of its work that counts.

        Ranks that counted the same share an array, where the other ranks of their groups counted the same, too.
        """
        groups: dict[tuple[int, ...], list[int]] = {}  # of tensor parallelism
        for rank in self.ranks:
            groups.setdefault(self.layout.piece(rank, ("dp", "cp", "pp")), []).append(rank)
        known: dict[tuple[CountedWork, ...], FloatArray] = {}

        def share(rank: int, members: Sequence[int]) -> FloatArray:
            peers = [self.ranks[peer] for peer in members if peer != rank]
            key = self.ranks[rank], *peers
            if key not in known:
                known[key] = self.ranks[rank].shares(peers)
            return known[key]

        return {rank: share(rank, members) for members in groups.values() for rank in members}


def counted_groups(whole: CountedGroup, ranks: Sequence[RankData], counts: Mapping[int, Counts]) -> list[CountedGroup]:
    """Returns the group of the models on the job's axes first, then those on axes of their own.  ``whole`` has all."""
    layout = whole.layout
    if not layout.own:
        return [whole]
    others = {root for data in ranks for root in data.tree.roots} - layout.own.keys()
    groups = []
    if others:
        groups.append(CountedGroup(layout, counted_ranks(ranks, counts, layout, others), whole.pipelines))
    for root, own in layout.own.items():
        counted = counted_ranks(ranks, counts, own, {root})
        pipelines = {data.rank: pipeline_position(data, own) for data in ranks if data.rank in counted}
        groups.append(CountedGroup(own, counted, pipelines))
    return groups


def counted_ranks(
    ranks: Sequence[RankData], counts: Mapping[int, Counts], layout: JobTopology, roots: Collection[int] = ()
) -> dict[int, CountedWork]:
    """Returns by rank what it counted, where its modules are known; of the models that are ``roots``, or of all."""
    shapes: dict[tuple[RankTree, ParameterSet], Shape] = {}
    works: dict[tuple[Hashable, ...], CountedWork] = {}
    found = {}
    for data in ranks:
        own = counts.get(data.rank)
        if own is not None and len(own.calls) <= len(data.tree):
            model = data.tree, data.parameters
            if model not in shapes:
                shapes[model] = Shape(*model)
            key = *model, id(data.layers), *_counted_arrays(own), *own.outside.items()
            if key not in works:
                works[key] = CountedWork(data, own, shapes[model], layout.info.sizes["tp"], roots)
            found[data.rank] = works[key]
    return found


def _counted_arrays(counts: Counts) -> tuple[int, ...]:
    """Returns the identities of the arrays that are read of a counted step: ranks that recorded the same share them."""
    return id(counts.forward_macs), id(counts.forward_flops), id(counts.backward_macs)
