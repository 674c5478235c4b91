"""Describes the parameters of a model in records: names, sizes, and their layout over the ranks."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.moe_layers import MoeLayer
from distprof.model.owned_parameters import OwnedParameter, OwnedParameters
from distprof.module_walk import modules_of
from distprof.records import DENSE, EMBEDDING, EXPERT, ROUTER, SHARED, ModuleRow, Parameter

_ROUTERS = ("gate", "router", "wg")


class FirstNames:
    """The name under which each parameter was first seen, over all roots.

    Keeps no parameter alive; the id of a freed one may be used again.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], tuple[weakref.ref[Tensor | nn.Module], int, str]] = {}
        self._tied_roots: dict[int, set[int]] = {}

    def tied_to(self, parameter: OwnedParameter, root: int, name: str) -> str:
        """Returns the name under which ``parameter`` was first seen; empty if that is now, or under this same name."""
        first = self._names.get(parameter.identity)
        if first is None or first[0]() is not parameter.anchor:
            self._names[parameter.identity] = (weakref.ref(parameter.anchor), root, name)
            return ""
        if first[1:] == (root, name):
            return ""
        self._tied_roots.setdefault(root, set()).add(first[1])
        return first[2]

    def tied_roots(self, root: int) -> tuple[int, ...]:
        """Returns the roots in which the tied parameters of ``root`` were first seen."""
        return tuple(sorted(self._tied_roots.get(root, ())))


@dataclass(frozen=True)
class _RowKind:
    """The kind of the parameters of one row, and the axis over which experts are distributed."""

    kind: str = DENSE
    axis: str = ""
    in_layer: bool = False  # the row is in a MoE layer


def parameters_of(
    module: nn.Module,
    first_row: int,
    rows: list[ModuleRow],
    layers: Sequence[MoeLayer],
    stacks: FrameworkRegistry,
    first_names: FirstNames,
) -> tuple[Parameter, ...]:
    """Returns all parameters of ``module`` and below, without lazy ones that have no shape yet.

    The module's rows begin at ``first_row``; ``layers`` are the MoE layers among them.
    """
    kinds, owners = _layer_kinds(layers), OwnedParameters(module)
    of_layers = {(layer.row, name): _expert_kind(layer) for layer in layers for name in layer.own}
    found: list[Parameter] = []
    for row, owner in zip(range(first_row, len(rows)), modules_of(module), strict=False):
        row_kind = kinds[row] = _row_kind(kinds, row, rows[row], owner)
        for parameter in owners.owned_by(owner):
            kind = of_layers.get((row, parameter.name), row_kind)
            found.append(_parameter(parameter, row, rows[row], kind, stacks, first_names))
    return tuple(found)


def _layer_kinds(layers: Sequence[MoeLayer]) -> dict[int, _RowKind]:
    kinds = {layer.row: _RowKind(in_layer=True) for layer in layers}
    for layer in layers:
        kinds |= {layer.router: _RowKind(ROUTER, in_layer=True)} if layer.router >= 0 else {}
        kinds |= dict.fromkeys(layer.parameter_rows, _expert_kind(layer))
        kinds |= dict.fromkeys(layer.shared_rows, _RowKind(SHARED, in_layer=True))
    return kinds


def _expert_kind(layer: MoeLayer) -> _RowKind:
    return _RowKind(EXPERT, layer.axis if layer.ways > 1 else "", in_layer=True)


def _row_kind(kinds: dict[int, _RowKind], row: int, module: ModuleRow, owner: nn.Module) -> _RowKind:
    """Returns the kind of the row's parent, unless the row starts another."""
    above = kinds.get(row) or kinds.get(module.parent, _RowKind())
    name = module.name.rpartition(".")[2].lower()
    if above.kind == EXPERT:
        return above
    if "shared_expert" in name:
        return replace(above, kind=SHARED)
    if above.in_layer and above.kind == DENSE and name in _ROUTERS:
        return replace(above, kind=ROUTER)
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) or "Embedding" in type(owner).__name__:
        return replace(above, kind=EMBEDDING)
    return replace(above, kind=DENSE) if above.kind == EMBEDDING else above


def _parameter(
    parameter: OwnedParameter,
    row: int,
    owner: ModuleRow,
    row_kind: _RowKind,
    stacks: FrameworkRegistry,
    first_names: FirstNames,
) -> Parameter:
    name = f"{owner.name}.{parameter.name}" if owner.name else parameter.name
    layout = parameter.layout(stacks, name, expert=row_kind.kind == EXPERT)
    own_axis = (row_kind.axis,) if row_kind.axis and row_kind.axis not in (*layout.sharded, *layout.split) else ()
    return Parameter(
        name=name,
        row=row,
        root=owner.root,
        local_numel=layout.local_numel,
        rank_numel=layout.rank_numel,
        global_numel=layout.global_numel,
        dtype=str(parameter.dtype).removeprefix("torch."),
        itemsize=parameter.dtype.itemsize,
        trainable=parameter.trainable,
        split=(*own_axis, *layout.split),
        tied_to=first_names.tied_to(parameter, owner.root, name),
        sharded=layout.sharded,
        kind=row_kind.kind,
        shared_as=layout.shared_as,
        kept_alike=parameter.kept_alike,
    )
