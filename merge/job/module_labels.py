"""Labels of modules in the report: unique, and in the names of the user's code.

- ``blocks.3.moe.router``, and ``GPT`` for a root;
- ``blocks.0 (OptimizedModule)`` for a wrapper, which has the name of the module that it wraps, and
  ``DistributedDataParallel`` around a root;
- ``Generator.layers.0`` where the job has several models with parameters; losses and transforms without parameters do
  not count as models here;
- ``layers.0 [stage 1]`` where every stage of a pipeline has a module of that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distprof.merge.load.run import LoadedRun
from distprof.records import ModuleRow


def names_in_holders(run: LoadedRun) -> dict[int, str]:
    """Returns by model what the module calls it that holds it; the first rank that says so counts."""
    names: dict[int, str] = {}
    for data in run.ranks:
        numbers = dict(data.models)
        for root, name in (*data.parameters.held_as.items(), *data.evaluated.held_as.items()):
            names.setdefault(numbers.get(root, root), name)
    return names


def module_labels(
    rows: Sequence[ModuleRow],
    parents: Sequence[int],
    models: Sequence[int],
    stages: Sequence[int],
    held_as: Mapping[int, str] | None = None,
) -> list[str]:
    """Returns one label a row.  ``rows`` are in depth-first order, ``parents`` are their parents' indices (-1: a root),
    ``models`` the numbers of their models, ``stages`` their stages (-1: no other stage has a module of that name), and
    ``held_as`` the names of models in the modules that hold them (``Agent.actor``).
    """
    names = _model_names(rows, _root_of(parents), models, held_as or {})
    alone = _only_with_parameters(rows, models)
    labels = [_label(row, "" if model == alone else names[model]) for row, model in zip(rows, models, strict=True)]
    marked = [label if stage < 0 else f"{label} [stage {stage}]" for label, stage in zip(labels, stages, strict=True)]
    return _unique(marked)


def _only_with_parameters(rows: Sequence[ModuleRow], models: Sequence[int]) -> int | None:
    """Returns the only model that has parameters, or the only model; None where there are several."""
    every = set(models)
    trained = {model for row, model in zip(rows, models, strict=True) if row.total_params}
    models_that_count = trained or every
    return next(iter(models_that_count)) if len(models_that_count) == 1 else None


def _root_of(parents: Sequence[int]) -> list[int]:
    roots: list[int] = []
    for index, parent in enumerate(parents):
        roots.append(index if parent < 0 else roots[parent])
    return roots


def _model_names(
    rows: Sequence[ModuleRow], roots: Sequence[int], models: Sequence[int], held_as: Mapping[int, str]
) -> dict[int, str]:
    """Returns by model its name in the module that holds it, or its class under its wrappers, numbered where shared."""
    classes: dict[int, str] = {}
    for row, root, model in zip(rows, roots, models, strict=True):
        if model not in classes or (not row.name and rows[root].wrapper):
            classes[model] = row.class_name
    classes |= {model: name for model, name in held_as.items() if model in classes}
    names = list(classes.values())
    return {model: name if names.count(name) == 1 else f"{name}#{model}" for model, name in classes.items()}


def _label(row: ModuleRow, model: str) -> str:
    if row.wrapper:
        wrapped = ".".join(filter(None, (model, row.name)))
        return f"{wrapped} ({row.class_name})" if wrapped else row.class_name
    if not row.name:
        return model or row.class_name
    return f"{model}.{row.name}" if model else row.name


def _unique(labels: list[str]) -> list[str]:
    """Numbers the later modules that share name and class with an earlier one (a class that wraps itself)."""
    taken: set[str] = set()
    unique = []
    for label in labels:
        candidate, number = label, 2
        while candidate in taken:
            candidate, number = f"{label} #{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique
