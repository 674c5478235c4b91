"""Numbers in the whole model for layers that every pipeline stage numbers from 0.

    number in the model = number on the stage + layers of that list on all stages before it

Stages are in the order of the model, virtual ones too.  The numbers of a list (``layers`` in ``layers.0``) are known
when

- every stage of the pipeline was recorded, undamaged, and all ranks of a stage have the same layers in it;
- each stage that has the list counts from 0, without a gap;
- all its layers, over all stages, are of one class; or each stage is an ``nn.Sequential`` itself.

Every rank then has the names of the whole model.  Otherwise the names stay, modules are distinguished by stage
(:mod:`distprof.merge.job.stages`), and a note gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from distprof.merge.job.stages import Pipeline
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.module_tree import RankTree
from distprof.merge.load.parameters import ParameterSet
from distprof.merge.load.run import LoadedRun
from distprof.merge.wording import join_words
from distprof.rank_names import number_spans
from distprof.records import ExpertLayer

_SEQUENTIAL = "Sequential"

#: (root, name on its stage) -> name in the model
Rename = Callable[[int, str], str]


@dataclass(frozen=True)
class _Stage:
    """One stage as a rank has it: its class, and for each list of numbered children their names and classes."""

    kind: str
    lists: dict[str, dict[str, str]]

    def items(self, name: str) -> dict[str, str]:
        return self.lists.get(name, {})


@dataclass
class _Model:
    """One model in its pipeline of ``count`` stages.  ``stages`` has each form of a stage that ranks recorded, once."""

    count: int
    stages: dict[int, list[_Stage]]


def with_layer_numbers(
    run: LoadedRun, layout: JobTopology, pipelines: Mapping[int, Pipeline]
) -> tuple[LoadedRun, tuple[str, ...]]:
    """Returns the run with the model's own layer numbers, and sentences on what was done and what could not be.

    ``pipelines`` has the position of every rank.
    """
    pp = layout.info.sizes["pp"]
    if pp == 1 and not any(data.topology and data.topology.stages for data in run.ranks):
        return run, ()
    damaged = any(data.report.damaged for data in run.ranks)
    firsts: dict[tuple[int, str], list[int]] = {}  # by model and list: the number of each stage's first
    unknown: dict[str, str] = {}  # by list: why
    for number, model in _models(run, pipelines, pp).items():
        for name in _colliding(model):
            why = _why_not(name, model, damaged)
            if why:
                unknown[name] = why
            else:
                lengths = [len(model.stages[stage][0].items(name)) for stage in range(model.count)]
                firsts[number, name] = [0, *accumulate(lengths)]
    renamed = _renamed(run, pipelines, firsts) if firsts else run
    return renamed, (*_notes_on_known(firsts), *_notes_on_unknown(unknown))


def _models(run: LoadedRun, pipelines: Mapping[int, Pipeline], pp: int) -> dict[int, _Model]:
    """Returns the models that are cut into stages: those that a framework named, or if it named none the only model."""
    found: dict[int, _Model] = {}
    recorded = any(data.topology and data.topology.stages for data in run.ranks)
    if not recorded and any(row.root for data in run.ranks for row in data.tree.rows):
        return {}
    for tree, pipeline, stages in dict.fromkeys(
        (data.tree, pipelines[data.rank], data.topology.stages if data.topology else ()) for data in run.ranks
    ):
        counts = {stage.root: stage.count for stage in stages} if recorded else {0: pp}
        for root, count in counts.items():
            number, stage = pipeline.place(root)
            seen = found.setdefault(number, _Model(count, {})).stages.setdefault(stage, [])
            one = _stage(tree, root)
            if one not in seen:
                seen.append(one)
    return found


def _stage(tree: RankTree, root: int) -> _Stage:
    """Returns the outermost lists of one stage; lists inside them are renamed with them."""
    classes = {row.name: row.class_name for row in tree.rows if row.root == root}  # the last one is below its wrappers
    children: dict[str, dict[str, str]] = {}
    for name, kind in classes.items():
        holder, _, item = name.rpartition(".")
        if name and not any(map(str.isdecimal, holder.split("."))):
            children.setdefault(holder, {})[item] = kind
    lists = {holder: items for holder, items in children.items() if any(map(str.isdecimal, items))}
    return _Stage(classes.get("", ""), lists)


def _colliding(model: _Model) -> list[str]:
    """Returns the lists in which one number is on several stages."""
    on: dict[tuple[str, str], set[int]] = {}
    for number, ranks in model.stages.items():
        for stage in ranks:
            for name, items in stage.lists.items():
                for item in filter(str.isdecimal, items):
                    on.setdefault((name, item), set()).add(number)
    return sorted({name for (name, _), stages in on.items() if len(stages) > 1})


def _why_not(name: str, model: _Model, damaged: bool) -> str:
    missing = [stage for stage in range(model.count) if stage not in model.stages]
    if missing:
        return f"nothing was recorded of {'stages' if len(missing) > 1 else 'stage'} {number_spans(missing)}"
    if damaged:
        return "a damaged shard may lack some"
    if any(one.items(name) != ranks[0].items(name) for ranks in model.stages.values() for one in ranks):
        return "ranks of one stage do not have the same"
    return _mismatch(name, [model.stages[stage][0] for stage in range(model.count)])


def _mismatch(name: str, stages: Sequence[_Stage]) -> str:
    """Returns why the lists of the stages may not make up one list of the model; empty where they do."""
    lists = [stage.items(name) for stage in stages]
    if any(list(items) != [str(number) for number in range(len(items))] for items in lists):
        return "a stage does not count them from 0"
    kinds = sorted({kind for items in lists for kind in items.values()})
    if len(kinds) > 1 and (name or {stage.kind for stage in stages} != {_SEQUENTIAL}):
        return f"they are of several classes ({join_words(kinds)})"
    return "" if name or all(lists) else "not all stages are lists of them"


def _renamed(
    run: LoadedRun, pipelines: Mapping[int, Pipeline], firsts: Mapping[tuple[int, str], Sequence[int]]
) -> LoadedRun:
    """Returns the run with the new names; ranks of one stage that shared an object still share one."""
    trees: dict[tuple[RankTree, Pipeline], RankTree] = {}
    sets: dict[tuple[ParameterSet, Pipeline], ParameterSet] = {}
    layers: dict[tuple[int, RankTree], tuple[ExpertLayer, ...]] = {}
    ranks = []
    for data in run.ranks:
        pipeline = pipelines[data.rank]
        rename = _rename(pipeline, firsts)
        if (data.tree, pipeline) not in trees:
            trees[data.tree, pipeline] = data.tree.renamed(rename)
        if (data.parameters, pipeline) not in sets:
            sets[data.parameters, pipeline] = data.parameters.renamed(rename)
        tree = trees[data.tree, pipeline]
        own = id(data.layers), tree
        if own not in layers:
            layers[own] = tuple(replace(layer, name=tree.rows[layer.row].name) for layer in data.layers)
        ranks.append(replace(data, tree=tree, parameters=sets[data.parameters, pipeline], layers=layers[own]))
    return replace(run, ranks=tuple(ranks))


def _rename(pipeline: Pipeline, firsts: Mapping[tuple[int, str], Sequence[int]]) -> Rename:
    def rename(root: int, name: str) -> str:
        model, stage = pipeline.place(root)
        parts = name.split(".")
        place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        if place is None or (model, ".".join(parts[:place])) not in firsts:
            return name
        first = firsts[model, ".".join(parts[:place])][stage]
        return ".".join([*parts[:place], str(int(parts[place]) + first), *parts[place + 1 :]])

    return rename


def _notes_on_known(firsts: Mapping[tuple[int, str], Sequence[int]]) -> Iterator[str]:
    for (_, name), numbers in firsts.items():
        stage = next(stage for stage, (own, after) in enumerate(pairwise(numbers)) if 0 < own < after)
        one, other = (f"{name}.{number}".lstrip(".") for number in (0, numbers[stage]))
        yield (
            f"each pipeline stage counts {_list_name(name)} from 0: they have their numbers in the model here, "
            f"{one} of stage {stage} is {other}"
        )


def _notes_on_unknown(unknown: Mapping[str, str]) -> Iterator[str]:
    for name, why in unknown.items():
        yield (
            f"several pipeline stages give the same numbers to {_list_name(name)}; which they have in the model is not "
            f"known ({why}): they are told apart by stage"
        )


def _list_name(name: str) -> str:
    return f"the layers in {name}" if name else "its layers"
