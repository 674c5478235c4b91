"""What modules are called in the report: unique, and as the user knows them.

``blocks.3.moe.router``; ``GPT`` for a root; ``blocks.0 (OptimizedModule)`` for a wrapper, which shares the name of
what it wraps, or ``DistributedDataParallel`` around a root; and ``Generator.layers.0`` where the job has several
models.
"""

from __future__ import annotations

from collections.abc import Sequence

from distprof.records import ModuleRow


def labels_of(rows: Sequence[ModuleRow], parents: Sequence[int]) -> list[str]:
    """One label a row; ``rows`` in depth-first order, ``parents`` their parents' indices (-1: a root)."""
    roots = _root_of(parents)
    models = _model_names(rows, roots)
    several = len(models) > 1
    return _unique([_label(row, models[root] if several else "") for row, root in zip(rows, roots, strict=True)])


def _root_of(parents: Sequence[int]) -> list[int]:
    roots: list[int] = []
    for index, parent in enumerate(parents):
        roots.append(index if parent < 0 else roots[parent])
    return roots


def _model_names(rows: Sequence[ModuleRow], roots: Sequence[int]) -> dict[int, str]:
    """By root: the class of the model under its wrappers, numbered where two models share it."""
    classes: dict[int, str] = {}
    for row, root in zip(rows, roots, strict=True):
        if root not in classes or (not row.name and rows[root].wrapper):
            classes[root] = row.class_name
    names = list(classes.values())
    return {root: name if names.count(name) == 1 else f"{name}#{rows[root].root}" for root, name in classes.items()}


def _label(row: ModuleRow, model: str) -> str:
    if row.wrapper:
        wrapped = ".".join(filter(None, (model, row.name)))
        return f"{wrapped} ({row.class_name})" if wrapped else row.class_name
    if not row.name:
        return model or row.class_name
    return f"{model}.{row.name}" if model else row.name


def _unique(labels: list[str]) -> list[str]:
    """Two modules may still share name and class (a class that wraps itself): the later ones are numbered."""
    taken: set[str] = set()
    unique = []
    for label in labels:
        candidate, number = label, 2
        while candidate in taken:
            candidate, number = f"{label} #{number}", number + 1
        taken.add(candidate)
        unique.append(candidate)
    return unique
