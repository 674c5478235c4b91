"""Finds the MoE layers of a model by asking the training stacks, and places their experts by the rank's coordinates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from distprof.frameworks.module_view import ModelView, unwrapped
from distprof.frameworks.moe_names import may_drop
from distprof.frameworks.protocol import Experts, ReadArguments, ReadHanded, ReadRouter
from distprof.model.count_buffers import ReadBuffer, count_buffer, is_compiled
from distprof.model.router_weights import ReadWeight, router_weight
from distprof.module_walk import modules_of
from distprof.records import ASSUMED, ExpertLayer, ModuleRow, Topology


@dataclass(frozen=True)
class MoeLayer:
    """A MoE layer before its experts are placed.

    ``expert_rows``: the rows of its local experts, in order, if each is a module; if empty, ``holder`` is the row of
    the module that computes all ``local`` experts.  ``num_experts`` is the global number.  ``router`` is a row too, and
    ``part_rows`` are further rows with weights of the experts; the other fields are as in
    :class:`~distprof.frameworks.protocol.Experts`.
    """

    name: str
    row: int
    expert_rows: tuple[int, ...]
    num_experts: int
    local: int
    holder: int = -1
    axis: str = "ep"
    top_k: int = 0
    shared_rows: tuple[int, ...] = ()
    padded: bool = False
    router: int = -1
    read_router: ReadRouter | None = None
    read_handed: ReadHanded | None = None
    read_processed: ReadArguments | None = None
    ids: tuple[int, ...] = ()
    part_rows: tuple[int, ...] = ()
    own: tuple[str, ...] = ()
    guessed: bool = False
    by_hand: bool = False  # the script counts its tokens; which rank hosts which expert is not known
    model_row: int = -1  # of the model in which it was found
    read_buffer: ReadBuffer | None = None  # of a compiled layer that counts the tokens of its experts itself
    router_weight: ReadWeight | None = None  # tells compiled graphs which layer's router they have
    may_drop: bool = True  # some of the choices of its router

    @property
    def ways(self) -> int:
        """The number of ranks over which the experts are distributed; 1 where their ids show no such order."""
        in_order = not self.ids or self.ids == tuple(range(self.first, self.first + self.local))
        return self.num_experts // self.local if in_order and self.first % self.local == 0 else 1

    @property
    def first(self) -> int:
        return self.ids[0] if self.ids else 0

    @property
    def is_counted(self) -> bool:
        """Whether the tokens that its local experts process can be seen on this rank."""
        return not self.padded and (self.read_processed is not None or bool(self.expert_rows))

    @property
    def parameter_rows(self) -> tuple[int, ...]:
        """The rows below which all parameters are those of experts."""
        holder = () if self.own else (self.holder,)
        return (*(self.expert_rows or holder), *self.part_rows)


def find_moe_layers(
    module: nn.Module,
    first_row: int,
    rows: list[ModuleRow],
    experts_of: Callable[[nn.Module, ModelView], Experts | None],
    size_of: Callable[[str], int],
) -> Iterator[MoeLayer]:
    """Yields the MoE layers of ``module``, whose rows begin at ``first_row``; ``size_of`` returns an axis's size."""
    view = ModelView(module)
    modules = dict(zip(range(first_row, len(rows)), modules_of(module), strict=False))
    inside: set[int] = set()
    for row, found in modules.items():
        if rows[row].parent in inside:
            inside.add(row)
        elif (experts := experts_of(found, view)) is not None:
            layer = moe_layer(experts, row, rows, modules, size_of)
            if layer is not None:
                inside.add(row)
                buffer = count_buffer(found, layer.num_experts) if _is_in_compiled(row, rows, modules) else None
                weight = router_weight(found, modules.get(layer.router), layer.num_experts)
                parts = (found, modules.get(layer.router), modules.get(layer.holder))
                drops = may_drop(*(unwrapped(part) for part in parts if part is not None))
                yield replace(
                    layer, model_row=first_row, read_buffer=buffer, router_weight=weight, may_drop=layer.padded or drops
                )


def place_layers(layers: list[MoeLayer], topology: Topology, rank: int) -> tuple[tuple[ExpertLayer, ...], Topology]:
    """Returns the layers with the global ids of their local experts (contiguous by ep rank), and the topology.

    If experts are distributed, but no axis says over which ranks, an assumed ep axis and a note are added to the
    topology.
    """
    ways = max((layer.ways for layer in layers if layer.axis == "ep"), default=1)
    stage = topology.sizes["dp"] * topology.sizes["cp"] * topology.sizes["tp"]
    if ways > 1 and topology.sizes["ep"] == 1 and stage % ways == 0:
        shared = next(layer for layer in layers if layer.ways == ways)
        note = (
            f"{shared.name} holds {shared.local} of {shared.num_experts} experts, but no mesh dimension "
            f"says where the others are: ep {ways} is assumed, by rank modulo {ways}; "
            "say otherwise with distprof.set_topology(ep=...)"
        )
        topology = replace(
            topology,
            sizes=topology.sizes | {"ep": ways},
            coordinates=topology.coordinates | {"ep": shared.first // shared.local if shared.ids else rank % ways},
            sources=topology.sources | {"ep": ASSUMED},
            notes=(*topology.notes, note),
        )
    return tuple(_place_experts(layer, topology.coordinates.get(layer.axis, 0)) for layer in layers), topology


def _place_experts(layer: MoeLayer, place: int) -> ExpertLayer:
    first = (place % layer.ways) * layer.local
    ids = () if layer.by_hand else layer.ids or tuple(range(first, first + layer.local))
    return ExpertLayer(
        layer.name, layer.row, layer.num_experts, ids, layer.axis, layer.top_k, layer.is_counted, layer.guessed
    )


def moe_layer(
    experts: Experts, row: int, rows: list[ModuleRow], modules: dict[int, nn.Module], size_of: Callable[[str], int]
) -> MoeLayer | None:
    """Makes the layer; None if its experts are not below ``row``, or if their numbers are inconsistent."""
    used = (experts.holder, experts.router, *experts.modules, *experts.shared, *experts.parts)
    own = {id(module) for module in used if module is not None}
    below: dict[int, int] = {}
    for at, found in modules.items():
        if id(found) in own and _is_below(at, row, rows):
            below.setdefault(id(found), at)  # of several names the first, as in ModuleTree.find
    local = len(experts.modules) or experts.local
    number = experts.num_experts or local * size_of(experts.axis)
    held = experts.modules or (experts.holder,)
    fits = len(experts.ids) == local if experts.ids else local > 0 and number % local == 0
    if local < 1 or not fits or not all(id(module) in below for module in held):
        return None
    return MoeLayer(
        rows[row].name,
        row,
        tuple(below[id(module)] for module in experts.modules),
        number,
        local,
        below.get(id(experts.holder), -1),
        experts.axis,
        experts.top_k,
        tuple(below[id(module)] for module in experts.shared if id(module) in below),
        experts.padded,
        below.get(id(experts.router), -1),
        experts.read_router,
        experts.read_handed,
        experts.read_processed,
        experts.ids,
        tuple(below[id(module)] for module in experts.parts if id(module) in below),
        experts.own,
        experts.guessed,
    )


def _is_in_compiled(row: int, rows: list[ModuleRow], modules: dict[int, nn.Module]) -> bool:
    """Whether the module of a row, or one around it, is compiled."""
    while row in modules:
        if is_compiled(modules[row]):
            return True
        row = rows[row].parent
    return False


def _is_below(row: int, ancestor: int, rows: list[ModuleRow]) -> bool:
    while row > ancestor:
        row = rows[row].parent
    return row == ancestor
