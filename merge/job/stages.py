"""The pipeline stage of each model of a rank, and the names that mean another module on every stage.

A pipeline that numbers its layers from 0 on each stage has a ``layers.0`` on every stage; one that keeps the model's
numbers has a ``layers`` on every stage, with other layers in it.  So a name that is on several stages means

- *one* module, a container that the pipeline runs through, when its numbered children differ on every stage, or its
  named children differ, or one of them is such a container itself;
- *another* module on every stage in all other cases, also where the class differs; so do all names below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from distprof.merge.job.module_keys import ModuleName
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.rank import RankData
from distprof.plain import dataclass


@dataclass(frozen=True)
class Pipeline:
    """What the models of one rank are in the pipeline: ``roots`` has (root, model, stage) of those that said so, and
    of those that have another number in the job than on the rank; any other root is a model of its own, on the rank's
    stage.
    """

    stage: int = 0
    roots: tuple[tuple[int, int, int], ...] = ()

    def place(self, root: int) -> tuple[int, int]:
        """Returns (model, stage) of a root; the stages of one pipeline are one model."""
        return next(((model, stage) for own, model, stage in self.roots if own == root), (root, self.stage))


def pipeline_position(data: RankData, layout: JobTopology) -> Pipeline:
    """Returns the place of a rank's models in the pipeline."""
    stages = data.topology.stages if data.topology is not None else ()
    model = min((stage.root for stage in stages), default=0)
    own, numbers = layout.piece(data.rank, ("pp",))[0], dict(data.models)
    roots = {root: (root, number, own) for root, number in data.models}
    roots |= {stage.root: (stage.root, numbers.get(model, model), stage.index) for stage in stages}
    return Pipeline(own, tuple(roots.values()))


def apart_on_stages(trees: Iterable[tuple[RankTree, Sequence[ModuleName], Sequence[int]]]) -> set[ModuleName]:
    """Returns the names that mean another module on every stage.  ``trees`` have their rows' names and stages."""
    inside: dict[ModuleName, dict[int, set[ModuleName]]] = {}  # by name, by stage; parents before their children
    parents: dict[ModuleName, ModuleName] = {}
    for tree, names, stages in trees:
        for row, name, stage in zip(tree.rows, names, stages, strict=True):
            inside.setdefault(name, {}).setdefault(stage, set())
            if row.parent >= 0:
                inside[names[row.parent]].setdefault(stage, set()).add(name)
                parents.setdefault(name, names[row.parent])
    through: set[ModuleName] = set()
    for name in reversed(inside):
        if _runs_through(list(inside[name].values()), through):
            through.add(name)
    apart: set[ModuleName] = set()
    for name, by_stage in inside.items():
        if len(by_stage) > 1 and (name not in through or parents.get(name) in apart):
            apart.add(name)
    return apart.union(*_of_other_classes(inside))


def _of_other_classes(inside: Mapping[ModuleName, Mapping[int, object]]) -> Iterator[list[ModuleName]]:
    """Yields names whose class differs between stages; roots are named by their class and are left out."""
    alike: dict[tuple[int, str], list[ModuleName]] = {}
    for name in inside:
        alike.setdefault((name.model, name.name), []).append(name)
    for (_, own), kinds in alike.items():
        stages = [stage for kind in kinds for stage in inside[kind]]
        if own and len(kinds) > 1 and len(stages) == len(set(stages)):
            yield kinds


def _runs_through(children: Sequence[set[ModuleName]], through: set[ModuleName]) -> bool:
    """Returns whether the pipeline runs through a container that has these children on its stages."""
    if len(children) == 1:
        return False
    everything = set.union(*children)
    if everything and all(child.name.rpartition(".")[2].isdecimal() for child in everything):
        return sum(map(len, children)) == len(everything)
    return any(own != children[0] for own in children) or not everything.isdisjoint(through)
