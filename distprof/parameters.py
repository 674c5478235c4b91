"""The parameters of a model as records: names, sizes and on which axes ranks hold different ones under one name."""

from __future__ import annotations

import weakref
from collections.abc import Collection

from torch import nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.torch_native import layout
from distprof.records import ModuleRow, Parameter


class FirstNames:
    """Under which name each parameter was met first, in whatever root.

    Holds none of them alive; an id may come back as that of another one.
    """

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[nn.Parameter], int, str]] = {}

    def tied_to(self, parameter: nn.Parameter, root: int, name: str) -> str:
        """The name under which ``parameter`` was met before; empty if this is the first time."""
        met = self._names.get(id(parameter))
        if met is None or met[0]() is not parameter:
            self._names[id(parameter)] = (weakref.ref(parameter), root, name)
            return ""
        return "" if met[1:] == (root, name) else met[2]


def parameters_of(
    module: nn.Module, first_row: int, rows: list[ModuleRow], split_over_ep: Collection[int], first_names: FirstNames
) -> tuple[Parameter, ...]:
    """All parameters of ``module`` and below, whose rows begin at ``first_row``.

    ``split_over_ep`` are the rows of experts that this rank shares out with the other ranks of its expert-parallel
    group.  A lazy parameter that has no shape yet is left out.
    """
    experts = set(split_over_ep)
    found: list[Parameter] = []
    modules = (owner for _, owner in module.named_modules(remove_duplicate=False))
    for row, owner in zip(range(first_row, len(rows)), modules, strict=False):
        if rows[row].parent in experts:
            experts.add(row)
        for short, parameter in owner._parameters.items():
            if parameter is not None and not is_lazy(parameter):
                split = ("ep",) if row in experts else ()
                found.append(_parameter(parameter, short, row, rows[row], split, first_names))
    return tuple(found)


def _parameter(
    parameter: nn.Parameter, short: str, row: int, owner: ModuleRow, split: tuple[str, ...], first_names: FirstNames
) -> Parameter:
    name = f"{owner.name}.{short}" if owner.name else short
    size = layout(parameter)
    return Parameter(
        name=name,
        row=row,
        root=owner.root,
        local_numel=size.local_numel,
        rank_numel=size.rank_numel,
        global_numel=size.global_numel,
        dtype=str(parameter.dtype).removeprefix("torch."),
        itemsize=parameter.element_size(),
        trainable=parameter.requires_grad,
        split=split,
        tied_to=first_names.tied_to(parameter, owner.root, name),
    )
