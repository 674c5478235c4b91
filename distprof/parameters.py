"""The parameters of a model as records: names, sizes and on which axes ranks hold different ones under one name."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from distprof.frameworks.torch_native import layout
from distprof.records import ModuleRow, Parameter, Parameters


def parameters_of(
    module: nn.Module, first_row: int, rows: list[ModuleRow], split_over_ep: Collection[int]
) -> Parameters:
    """All parameters of the root ``module``, whose rows begin at ``first_row``.

    ``split_over_ep`` are the rows of experts that this rank shares out with the other ranks of its expert-parallel
    group.
    """
    experts = set(split_over_ep)
    first_name: dict[int, str] = {}
    found: list[Parameter] = []
    modules = (owner for _, owner in module.named_modules(remove_duplicate=False))
    for row, owner in zip(range(first_row, len(rows)), modules, strict=False):
        if rows[row].parent in experts:
            experts.add(row)
        for short, parameter in owner._parameters.items():
            if parameter is None:
                continue
            name = f"{rows[row].name}.{short}" if rows[row].name else short
            tied_to = first_name.setdefault(id(parameter), name)
            size = layout(parameter)
            found.append(
                Parameter(
                    name=name,
                    row=row,
                    root=rows[row].root,
                    local_numel=size.local_numel,
                    rank_numel=size.rank_numel,
                    global_numel=size.global_numel,
                    dtype=str(parameter.dtype).removeprefix("torch."),
                    itemsize=parameter.element_size(),
                    trainable=parameter.requires_grad,
                    split=("ep",) if row in experts else (),
                    tied_to="" if tied_to == name else tied_to,
                )
            )
    return Parameters(root=rows[first_row].root, parameters=tuple(found))
