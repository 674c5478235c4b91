"""Finds modules of the tree that do the same work, so that repeated layers can be shown as one."""

from __future__ import annotations

from collections.abc import Sequence

from distprof.merge.report import ModuleStats


def children_of(modules: Sequence[ModuleStats]) -> list[list[int]]:
    """Returns for each module the indices of the modules directly inside it, in the order of the model."""
    children: list[list[int]] = [[] for _ in modules]
    for index, module in enumerate(modules):
        if module.parent >= 0:
            children[module.parent].append(index)
    return children


def same_work(modules: Sequence[ModuleStats], children: Sequence[Sequence[int]]) -> list[int]:
    """Returns a number for each module: equal for modules with the same classes, structure and counts at all depths.

    Times and the module's own name are ignored.  Rows are in depth-first order: children come after parents.
    """
    kinds: dict[object, int] = {}
    numbers = [0] * len(modules)
    for index in reversed(range(len(modules))):
        module = modules[index]
        inside = tuple((modules[child].name[len(module.name) :], numbers[child]) for child in children[index])
        what = (module.class_name, module.extra_repr, module.wrapper)
        work = (module.params, module.own_params, module.calls, module.macs, module.flops, module.ranks)
        numbers[index] = kinds.setdefault((what, work, inside), len(kinds))
    return numbers
