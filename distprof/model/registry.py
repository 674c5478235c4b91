"""The models of this rank: adopts those found running, and says in records what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.attribute_names import HeldNames
from distprof.model.module_tree import ModuleTree
from distprof.model.moe_layers import MoeLayer, find_moe_layers, place_layers
from distprof.model.parameters import FirstNames, parameters_of
from distprof.model.record_chunks import parameter_records, tree_records
from distprof.model.topology import RankTopology
from distprof.rank.identity import Identity
from distprof.records import ExpertLayer, ExpertLayers, Parameter, Record, Topology
from distprof.topology.meshes import MeshRecorder

#: Models of which each is placed as it is met.  What places one looks at all of them: of more, it is done once an
#: iteration (layers in a plain list are a model each).
_PLACED_AT_ONCE = 16


_MAX_TEXT = 1_000


class ModelRegistry:
    """Module tree, parameters, MoE layers and topology of one rank."""

    def __init__(self, identity: Identity, meshes: MeshRecorder) -> None:
        self._stacks = FrameworkRegistry()
        self.tree = ModuleTree(self._stacks)
        self._rank = identity.rank
        self._standing = RankTopology(identity.rank, identity.world_size, meshes, self._stacks)
        self._layers: list[MoeLayer] = []
        self._told: tuple[Topology, tuple[ExpertLayer, ...]] | None = None
        self._parameters: dict[int, list[Parameter]] = {}  # by root
        self._untold: set[int] = set()  # roots whose parameters are more than was told
        self._roots = 0
        self._to_place = False  # models were met since the places were told
        self._first_names = FirstNames()
        self._held_names = HeldNames()
        self._held_as: dict[int, str] = {}  # by root, where there are several with parameters

    @property
    def expert_layers(self) -> tuple[MoeLayer, ...]:
        """All MoE layers, in the order in which they are told."""
        return tuple(self._layers)

    @property
    def is_pipelined(self) -> bool:
        """Whether the models are stages of a pipeline, as far as the ranks' places were told."""
        topology = self._told[0] if self._told is not None else None
        return topology is not None and (topology.sizes["pp"] > 1 or bool(topology.stages))

    def adopt(self, module: nn.Module, caller: int = -1) -> tuple[int, list[Record]]:
        """The row of a module not met before (-1: none, it is its caller's own), and the records that tell of it; the
        parameters of one that joins its caller's root are :meth:`late`, and so are the places where models are many.
        """
        if caller >= 0 and _is_compilers(module):
            return -1, []
        row = self.tree.adopt(module, caller)
        news = self.tree.news()
        if row < 0 or news is None:
            if row >= 0 and caller < 0:
                self._standing.met_again(module, self.tree.rows[row].root)
            return row, []
        if caller < 0:
            self._roots += 1
            self._standing.met(module, self.tree.rows[row].root)
        layers = self._find_layers(module, row)
        self._layers += layers
        self._note_parameters(module, row, layers)
        if caller >= 0 and not layers:
            return row, [*tree_records(news)]
        self._to_place = self._roots > _PLACED_AT_ONCE
        places = () if self._to_place else self.places()
        return row, [*tree_records(news), *(self._untold_parameters() if caller < 0 else ()), *places]

    def late(self) -> Sequence[Record]:
        """What is told once an iteration, because it is told whole: parameters that have joined a root (a script may
        make modules in every forward), and the places of many models.
        """
        return [*self._untold_parameters(), *(self.places() if self._to_place else ())]

    def _untold_parameters(self) -> Sequence[Record]:
        if not self._untold:
            return ()
        roots, self._untold = sorted(self._untold), set()
        return [
            record
            for root in roots
            for record in parameter_records(root, self._parameters[root], self._held_as.get(root, ""))
        ]

    def places(self) -> Iterator[Record]:
        """Topology and MoE layers, where they are not what was told last: groups may appear late."""
        self._to_place = False
        layers, topology = place_layers(self._layers, self._standing.topology(), self._rank)
        topology = self._with_doubt(topology)
        if self._told is None or self._told[0] != topology:
            yield topology
        if layers and (self._told is None or self._told[1] != layers):
            yield ExpertLayers(layers)
        self._told = topology, layers

    def _with_doubt(self, topology: Topology) -> Topology:
        """Says when no parameter tells of tensor parallelism: plain tensors that a script cuts look like copies."""
        ways, cut = topology.sizes["tp"], {"tp", "etp"}
        told = (p for parameters in self._parameters.values() for p in parameters)
        if ways == 1 or not self._parameters or any(cut & {*p.sharded, *p.split} for p in told):
            return topology
        note = f"tp {ways}, but no parameter says that it is cut over tp ranks: all of them are counted as copies"
        return replace(topology, notes=(*topology.notes, note))

    def _find_layers(self, module: nn.Module, row: int) -> list[MoeLayer]:
        def size_of(axis: str) -> int:
            return self._standing.topology().sizes.get(axis, 1)

        return list(find_moe_layers(module, row, self.tree.rows, self._stacks.experts, size_of))

    def _note_parameters(self, module: nn.Module, row: int, layers: list[MoeLayer]) -> None:
        """Add those of ``module``, now at ``row``, to the root that it is or joins: the last record of a root holds."""
        found = parameters_of(module, row, self.tree.rows, layers, self._stacks, self._first_names)
        root = self.tree.rows[row].root
        if found or root not in self._parameters:
            self._parameters.setdefault(root, []).extend(found)
            self._untold.add(root)
        if self.tree.rows[row].parent < 0 and found:
            self._name_models()

    def _name_models(self) -> None:
        """Looks for the modules that hold the models, as soon as there are several to tell apart."""
        several = [root for root, parameters in self._parameters.items() if parameters]
        for root in several if len(several) > 1 else ():
            model = self._standing.model(root)
            if root not in self._held_as and model is not None:
                self._held_as[root] = self._held_names.of(model)[:_MAX_TEXT]
                if self._held_as[root]:
                    self._untold.add(root)


def _is_compilers(module: nn.Module) -> bool:
    """Whether dynamo made this module: the code of a compiled region, which may serve several modules of one class."""
    fx = sys.modules.get("torch.fx")
    return fx is not None and isinstance(module, fx.GraphModule)
