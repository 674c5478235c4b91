"""The models of this rank: adopts those found running, and says in records what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from distprof.errors import UsageError
from distprof.frameworks.axes import declared, from_meshes
from distprof.frameworks.declaration import current
from distprof.frameworks.module_list import FoundLayer, find_layers, place
from distprof.frameworks.torch_native import MeshWatch
from distprof.identity import Identity
from distprof.parameters import FirstNames, parameters_of
from distprof.records import ExpertLayer, ExpertLayers, Parameter, Parameters, Record, Topology
from distprof.tree import ModuleTree


class Models:
    """Module tree, parameters, MoE layers and topology of one rank."""

    def __init__(self, identity: Identity, meshes: MeshWatch) -> None:
        self.tree = ModuleTree()
        self._identity = identity
        self._meshes = meshes
        self._layers: list[FoundLayer] = []
        self._told: tuple[Topology, tuple[ExpertLayer, ...]] | None = None
        self._parameters: dict[int, list[Parameter]] = {}  # by root
        self._untold: set[int] = set()  # roots whose parameters are more than was told
        self._first_names = FirstNames()

    @property
    def expert_rows(self) -> list[int]:
        """Rows of the local experts of all MoE layers, in the order of their loads."""
        return [row for layer in self._layers for row in layer.expert_rows]

    def adopt(self, module: nn.Module, caller: int = -1) -> tuple[int, list[Record]]:
        """The row of a module not met before (-1: none, it is its caller's own), and the records that tell of it; the
        parameters of one that joins its caller's root are :meth:`late`.
        """
        if caller >= 0 and _is_compilers(module):
            return -1, []
        row = self.tree.adopt(module, caller)
        news = self.tree.news()
        if row < 0 or news is None:
            return row, []
        layers = list(find_layers(module, row, self.tree.rows, self._topology().sizes["ep"]))
        self._layers += layers
        split = [expert for layer in layers if layer.ways > 1 for expert in layer.expert_rows]
        self._note_parameters(module, row, split)
        return row, [news, *(self.late() if caller < 0 else ()), *self.places()]

    def late(self) -> Iterator[Record]:
        """Parameters that have joined a root.  They are told whole, so once an iteration: a script may make modules in
        every forward.
        """
        for root in sorted(self._untold):
            yield Parameters(root, tuple(self._parameters[root]))
        self._untold.clear()

    def places(self) -> Iterator[Record]:
        """Topology and MoE layers, where they are not what was told last: groups may appear late."""
        layers, topology = place(self._layers, self._topology(), self._identity.rank)
        if self._told is None or self._told[0] != topology:
            yield topology
        if layers and (self._told is None or self._told[1] != layers):
            yield ExpertLayers(layers)
        self._told = topology, layers

    def _note_parameters(self, module: nn.Module, row: int, split: list[int]) -> None:
        """Add those of ``module``, now at ``row``, to the root that it is or joins: the last record of a root holds."""
        found = parameters_of(module, row, self.tree.rows, split, self._first_names)
        root = self.tree.rows[row].root
        if found or root not in self._parameters:
            self._parameters.setdefault(root, []).extend(found)
            self._untold.add(root)

    def _topology(self) -> Topology:
        """What the script declared, else what its meshes tell, else pure data parallel."""
        said, rank, world_size = current(), self._identity.rank, self._identity.world_size
        from_torch = from_meshes(tuple(self._meshes.seen), rank, world_size)
        if said is None:
            return from_torch
        try:
            return declared(said.sizes, said.coordinates, rank, world_size)
        except UsageError as error:
            return replace(from_torch, notes=(f"set_topology was passed over: {error}", *from_torch.notes))


def _is_compilers(module: nn.Module) -> bool:
    """Whether dynamo made this module: the code of a compiled region, which may serve several modules of one class."""
    fx = sys.modules.get("torch.fx")
    return fx is not None and isinstance(module, fx.GraphModule)
