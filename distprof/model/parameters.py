"""The parameters of a model as records: names, sizes, and how they are laid out over the ranks."""

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
    """Under which name each parameter was met first, in whatever root.

    Holds none of them alive; an id may come back as that of another one.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], tuple[weakref.ref[Tensor | nn.Module], int, str]] = {}

    def tied_to(self, parameter: OwnedParameter, root: int, name: str) -> str:
        """The name under which ``parameter`` was met before; empty if this is the first time."""
        met = self._names.get(parameter.identity)
        if met is None or met[0]() is not parameter.anchor:
            self._names[parameter.identity] = (weakref.ref(parameter.anchor), root, name)
            return ""
        return "" if met[1:] == (root, name) else met[2]


@dataclass(frozen=True)
class _Place:
    """Where the parameters of one row stand: what they are, and the axis over which experts are shared out."""

    kind: str = DENSE
    axis: str = ""
    in_layer: bool = False  # of a MoE layer


def parameters_of(
    module: nn.Module,
    first_row: int,
    rows: list[ModuleRow],
    layers: Sequence[MoeLayer],
    stacks: FrameworkRegistry,
    first_names: FirstNames,
) -> tuple[Parameter, ...]:
    """All parameters of ``module`` and below, whose rows begin at ``first_row``, with the MoE ``layers`` among them.  A
    lazy parameter that has no shape yet is left out.
    """
    places, owners = _places(layers), OwnedParameters(module)
    found: list[Parameter] = []
    for row, owner in zip(range(first_row, len(rows)), modules_of(module), strict=False):
        place = places[row] = _place(places, row, rows[row], owner)
        for parameter in owners.owned_by(owner):
            found.append(_parameter(parameter, row, rows[row], place, stacks, first_names))
    return tuple(found)


def _places(layers: Sequence[MoeLayer]) -> dict[int, _Place]:
    places = {layer.row: _Place(in_layer=True) for layer in layers}
    for layer in layers:
        axis = layer.axis if layer.ways > 1 else ""
        places |= dict.fromkeys(layer.parameter_rows, _Place(EXPERT, axis, in_layer=True))
        places |= dict.fromkeys(layer.shared_rows, _Place(SHARED, in_layer=True))
    return places


def _place(places: dict[int, _Place], row: int, module: ModuleRow, owner: nn.Module) -> _Place:
    """That of its parent, unless it begins something."""
    above = places.get(row) or places.get(module.parent, _Place())
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
    place: _Place,
    stacks: FrameworkRegistry,
    first_names: FirstNames,
) -> Parameter:
    name = f"{owner.name}.{parameter.name}" if owner.name else parameter.name
    layout = parameter.layout(stacks, name, expert=place.kind == EXPERT)
    own_axis = (place.axis,) if place.axis and place.axis not in (*layout.sharded, *layout.split) else ()
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
        kind=place.kind,
        shared_as=layout.shared_as,
        kept_alike=parameter.kept_alike,
    )
