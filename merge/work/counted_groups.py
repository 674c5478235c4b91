"""What ranks counted, by models on the same axes: models on axes of their own are looked at one by one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from distprof.merge.arrays import FloatArray
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.run import LoadedRun
from distprof.merge.work.tp_duplicates import CountedRank, Shape


@dataclass(frozen=True)
class CountedGroup:
    """What ranks counted of models on the same axes, by rank."""

    layout: JobTopology
    ranks: dict[int, CountedRank]

    @cached_property
    def shares(self) -> dict[int, FloatArray]:
        """By rank, by row of its tree: the share of its work that counts."""
        groups: dict[tuple[int, ...], list[int]] = {}  # of tensor parallelism
        for rank in self.ranks:
            groups.setdefault(self.layout.piece(rank, ("dp", "cp", "pp")), []).append(rank)
        return {
            rank: self.ranks[rank].shares([self.ranks[peer] for peer in members if peer != rank])
            for members in groups.values()
            for rank in members
        }


def counted_groups(run: LoadedRun, layout: JobTopology) -> list[CountedGroup]:
    """That of the models on the job's axes first, then those on axes of their own."""
    if not layout.own:
        return [CountedGroup(layout, counted_ranks(run, layout))]
    others = {root for data in run.ranks for root in data.tree.roots} - layout.own.keys()
    parts = [(layout, others)] if others else []
    parts += [(own, {root}) for root, own in layout.own.items()]
    return [CountedGroup(own, counted_ranks(run, own, roots)) for own, roots in parts]


def counted_ranks(run: LoadedRun, layout: JobTopology, roots: Collection[int] = ()) -> dict[int, CountedRank]:
    """By rank, those that counted, and whose modules are known; of the models that are ``roots``, or of all."""
    shapes: dict[tuple[RankTree, ParameterSet], Shape] = {}
    found = {}
    for data in run.ranks:
        window = data.windows.get(run.mode)
        if window is not None and window.counts is not None and len(window.counts.calls) <= len(data.tree):
            key = data.tree, data.parameters
            if key not in shapes:
                shapes[key] = Shape(*key)
            found[data.rank] = CountedRank(data, window.counts, shapes[key], layout.info.sizes["tp"], roots)
    return found
