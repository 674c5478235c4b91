"""The counted work of the ranks, in groups of models on the same axes; a model on axes of its own is a group."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from distprof.merge.arrays import FloatArray
from distprof.merge.job.stages import Pipeline, pipeline_position
from distprof.merge.job.topology import JobTopology
from distprof.merge.job.tp_duplicates import CountedRank, Shape
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.rank import RankData
from distprof.records import Counts


@dataclass(frozen=True)
class CountedGroup:
    """The counted work of models on the same axes, by rank."""

    layout: JobTopology
    ranks: dict[int, CountedRank]
    pipelines: Mapping[int, Pipeline]  # on the axes of these models

    @cached_property
    def shares(self) -> dict[int, FloatArray]:
        """Returns by rank, by row of its tree, the share of its work that counts."""
        groups: dict[tuple[int, ...], list[int]] = {}  # of tensor parallelism
        for rank in self.ranks:
            groups.setdefault(self.layout.piece(rank, ("dp", "cp", "pp")), []).append(rank)
        return {
            rank: self.ranks[rank].shares([self.ranks[peer] for peer in members if peer != rank])
            for members in groups.values()
            for rank in members
        }


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
        pipelines = {rank: pipeline_position(one.data, own) for rank, one in counted.items()}
        groups.append(CountedGroup(own, counted, pipelines))
    return groups


def counted_ranks(
    ranks: Sequence[RankData], counts: Mapping[int, Counts], layout: JobTopology, roots: Collection[int] = ()
) -> dict[int, CountedRank]:
    """Returns by rank what it counted, where its modules are known; of the models that are ``roots``, or of all."""
    shapes: dict[tuple[RankTree, ParameterSet], Shape] = {}
    found = {}
    for data in ranks:
        own = counts.get(data.rank)
        if own is not None and len(own.calls) <= len(data.tree):
            key = data.tree, data.parameters
            if key not in shapes:
                shapes[key] = Shape(*key)
            found[data.rank] = CountedRank(data, own, shapes[key], layout.info.sizes["tp"], roots)
    return found
