"""Finds modules of the tree that do the same work, so that repeated layers can be shown as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from distprof.merge.report import ModuleStats


def children_of(modules: Sequence[ModuleStats]) -> list[list[int]]:
    """Returns for each module the indices of the modules directly inside it, in the order of the model."""
    children: list[list[int]] = [[] for _ in modules]
    for index, module in enumerate(modules):
        if module.parent >= 0:
            children[module.parent].append(index)
    return children


def same_work(
    modules: Sequence[ModuleStats], children: Sequence[Sequence[int]], expert_layers: Collection[str] = ()
) -> list[int]:
    """Returns a number for each module: equal for modules with the same classes, structure and counts at all depths.

    Times and the module's own name are ignored, and in MoE layers, whose labels are ``expert_layers``, also calls and
    MACs, which depend on the data.  Rows are in depth-first order: children come after parents.
    """
    kinds: dict[object, int] = {}
    numbers = [0] * len(modules)
    routed = _inside(modules, expert_layers)
    for index in reversed(range(len(modules))):
        module = modules[index]
        inside = tuple((modules[child].name[len(module.name) :], numbers[child]) for child in children[index])
        what = (module.class_name, module.extra_repr, module.wrapper, module.params, module.own_params, module.ranks)
        work = () if routed[index] else (module.calls, module.self_macs)
        numbers[index] = kinds.setdefault((what, work, inside), len(kinds))
    return numbers


def _inside(modules: Sequence[ModuleStats], labels: Collection[str]) -> list[bool]:
    """Returns for each module whether it, or one that it is in, has one of the labels."""
    found: list[bool] = []
    for module in modules:
        found.append(module.label in labels or (module.parent >= 0 and found[module.parent]))
    return found
