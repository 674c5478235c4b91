"""MoE layers whose experts are the children of an ``nn.ModuleList``: where they are, and which global experts a rank
hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from distprof.records import ExpertLayer, ModuleRow, Topology

#: Attributes of a MoE module in which its global number of experts stands, in the order in which they are believed.
_GLOBAL_COUNT = ("num_experts", "n_experts", "num_global_experts", "n_routed_experts", "num_routed_experts")
_ROUTERS = ("gate", "router", "wg")


@dataclass(frozen=True)
class FoundLayer:
    """A MoE layer before its experts are placed: rows of its local experts, in order, and how many there are in all."""

    name: str
    row: int
    expert_rows: tuple[int, ...]
    num_experts: int

    @property
    def ways(self) -> int:
        """Over how many ranks the experts are shared out."""
        return self.num_experts // len(self.expert_rows)


def find_layers(module: nn.Module, first_row: int, rows: list[ModuleRow], ep: int) -> Iterator[FoundLayer]:
    """The MoE layers of the root ``module``, whose rows begin at ``first_row``; ``ep`` is the expert-parallel size, if
    known.
    """
    children: dict[int, list[int]] = {}
    modules: dict[int, nn.Module] = {}
    walk = module.named_modules(remove_duplicate=False)
    for row, (_, found) in zip(range(first_row, len(rows)), walk, strict=False):
        modules[row] = found
        children.setdefault(rows[row].parent, []).append(row)
    for row, found in modules.items():
        if isinstance(found, nn.ModuleList) and _named_expert(rows[row].name) and len({type(c) for c in found}) == 1:
            parent = rows[row].parent
            if parent in modules:
                local = tuple(children[row])
                yield FoundLayer(rows[parent].name, parent, local, _num_experts(modules[parent], len(local), ep))


def place(layers: list[FoundLayer], topology: Topology, rank: int) -> tuple[tuple[ExpertLayer, ...], Topology]:
    """The layers with the global ids of their local experts (contiguous by ep rank), and the topology, to which an
    expert axis is added, with a note that says so, when experts are plainly shared out but no axis says over which
    ranks.
    """
    ways = max((layer.ways for layer in layers), default=1)
    stage = topology.sizes["dp"] * topology.sizes["cp"] * topology.sizes["tp"]
    if ways > 1 and topology.sizes["ep"] == 1 and stage % ways == 0:
        shared = next(layer for layer in layers if layer.ways == ways)
        note = (
            f"{shared.name} holds {len(shared.expert_rows)} of {shared.num_experts} experts, but no mesh dimension "
            f"says where the others are: ep {ways} is assumed, by rank modulo {ways}; "
            "say otherwise with distprof.set_topology(ep=...)"
        )
        topology = replace(
            topology,
            sizes=topology.sizes | {"ep": ways},
            coordinates=topology.coordinates | {"ep": rank % ways},
            notes=(*topology.notes, note),
        )
    return tuple(_placed(layer, topology.coordinates["ep"]) for layer in layers), topology


def _placed(layer: FoundLayer, ep_rank: int) -> ExpertLayer:
    local = len(layer.expert_rows)
    first = (ep_rank % layer.ways) * local
    return ExpertLayer(layer.name, layer.row, layer.num_experts, tuple(range(first, first + local)))


def _named_expert(name: str) -> bool:
    return "expert" in name.rpartition(".")[2].lower()


def _num_experts(layer: nn.Module, local: int, ep: int) -> int:
    """The global number of experts: what the layer says, else the width of its router, else all ep ranks' together."""
    said: list[Any] = [getattr(layer, name, None) for name in _GLOBAL_COUNT]
    said += [getattr(child, "out_features", None) for name, child in layer.named_modules() if _is_router(name)]
    for number in said:
        if type(number) is int and number >= local and number % local == 0:
            return number
    return local * ep


def _is_router(name: str) -> bool:
    return any(part in _ROUTERS for part in name.split("."))
