"""The models of this rank: adopts those that run, and describes them in records."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import nn

from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.attribute_names import HeldNames
from distprof.model.expert_suspects import find_suspects
from distprof.model.module_tree import ModuleTree
from distprof.model.moe_layers import MoeLayer, find_moe_layers, place_layers
from distprof.model.parameters import FirstNames, parameters_of
from distprof.model.record_chunks import parameter_records, tree_records
from distprof.model.topology import RankTopology
from distprof.model.unnamed_layers import Seen, UnnamedLayer, Verdict, doubtful, find_unnamed_layers, judge, with_kinds
from distprof.module_walk import parameters_in
from distprof.rank.identity import Identity
from distprof.records import ExpertLayers, Parameter, Record, Suspect, Topology
from distprof.topology.meshes import MeshRecorder

#: Up to so many models, topology and layers are recorded with each new one.  As that visits all models, beyond this
#: number it is done once an iteration (layers in a plain list are a model each).
_PLACED_AT_ONCE = 16
_MAX_TEXT = 1_000


class ModelRegistry:
    """Module tree, parameters, MoE layers and topology of one rank."""

    def __init__(self, identity: Identity, meshes: MeshRecorder, *, counts: bool = False) -> None:
        """``counts``: a step will be counted, whose calls tell MoE layers without telling names."""
        self._counts = counts
        self._stacks = FrameworkRegistry()
        self.tree = ModuleTree(self._stacks)
        self._rank = identity.rank
        self._topology = RankTopology(identity.rank, identity.world_size, meshes, self._stacks)
        self._layers: list[MoeLayer] = []
        self._suspects: list[Suspect] = []
        self._unnamed: list[UnnamedLayer] = []
        self._last_places: tuple[Topology, ExpertLayers] | None = None
        self._parameters: dict[int, list[Parameter]] = {}  # by root
        self._unrecorded: set[int] = set()  # roots with parameters that are in no record yet
        self._evaluated: set[int] = set()  # roots first called without gradient, with no parameter in an optimizer
        self._roots = 0
        self._places_are_due = False  # models were added since the last topology record
        self._first_names = FirstNames()
        self._held_names = HeldNames()
        self._held_as: dict[int, str] = {}  # by root, if several roots have parameters

    @property
    def expert_layers(self) -> tuple[MoeLayer, ...]:
        """All MoE layers, in the order of their records."""
        return tuple(self._layers)

    @property
    def unnamed(self) -> tuple[UnnamedLayer, ...]:
        """What may be further layers: :meth:`late_records` follow what a counted step shows of them."""
        return tuple(self._unnamed)

    def layer_number(self, module: nn.Module, experts: int) -> tuple[int | None, Sequence[Record]]:
        """Returns the number of the MoE layer that ``module`` is, and new records; None if the module has no row.

        A module that is no layer becomes one of ``experts``, whose tokens the script counts itself.
        """
        row = self.tree.find(module, -1)
        if row is None:
            return None, ()
        described = self.tree.rows[row]
        self._add_named_by_script(row)
        for number, layer in enumerate(self._layers):
            if layer.row == row or (layer.name == described.name and self.tree.rows[layer.row].root == described.root):
                return number, ()
        name = described.name or described.class_name
        self._layers.append(MoeLayer(name, row, (), experts, experts, by_hand=True))
        return len(self._layers) - 1, [*self.place_records()]

    def reducer_groups(self) -> list[object]:
        """Returns the groups that DDP's reducers use, as far as nothing else does without being seen."""
        return self._topology.reducer_groups()

    @property
    def is_pipelined(self) -> bool:
        """Whether the models are stages of a pipeline, by the last topology record."""
        topology = self._last_places[0] if self._last_places is not None else None
        return topology is not None and (topology.sizes["pp"] > 1 or bool(topology.stages))

    def adopt(self, module: nn.Module, caller: int = -1, *, with_gradient: bool = True) -> tuple[int, list[Record]]:
        """Returns the row of a new module (-1: none, its work is its caller's), and the records that describe it.

        The parameters of a module that joins its caller's root come in :meth:`late_records`, and so do topology and
        layers if there are many models.  ``with_gradient``: whether its first forward has gradient enabled.
        """
        if caller >= 0 and _is_compiler_made(module):
            return -1, []
        row = self.tree.adopt(module, caller)
        new_rows = self.tree.take_new_rows()
        if row < 0 or new_rows is None:
            if row >= 0 and caller < 0:
                self._topology.replace_model(module, self.tree.rows[row].root)
            return row, []
        if caller < 0:
            self._roots += 1
            self._topology.add_model(module, self.tree.rows[row].root)
            if not with_gradient:
                self._evaluated.add(self.tree.rows[row].root)
        layers = self._find_layers(module, row)
        self._unnamed += find_unnamed_layers(module, row, self.tree.rows, layers, self._size_of)
        suspects = [*find_suspects(module, row, self.tree.rows, layers)]
        self._suspects += suspects
        doubted = doubtful(layers, row, module) if self._counts else []
        self._unnamed += doubted
        layers = [layer for layer in layers if not any(layer is one.layer for one in doubted)]
        self._layers += layers
        self._add_parameters(module, row, layers)
        if caller >= 0 and not layers and not suspects:
            return row, [*tree_records(new_rows)]
        self._places_are_due = self._roots > _PLACED_AT_ONCE
        places = () if self._places_are_due else self.place_records()
        return row, [*tree_records(new_rows), *(self._take_unrecorded_parameters() if caller < 0 else ()), *places]

    @property
    def has_late_records(self) -> bool:
        """Whether :meth:`late_records` may have any."""
        are_judged = any(one.is_due for one in self._unnamed)
        return bool(self._evaluated or self._unrecorded or self._places_are_due or are_judged)

    def late_records(self, optimizers: Iterable[object] = ()) -> Sequence[Record]:
        """Returns the records that are written once an iteration, because each describes everything again.

        These are the parameters of roots that modules have joined (a script may make modules in every forward), and
        topology and layers if there are many models.  A model with a parameter that ``optimizers`` step is described
        again if its record says that it is only evaluated.
        """
        self._find_trained(optimizers)
        self._judge_unnamed()
        return [*self._take_unrecorded_parameters(), *(self.place_records() if self._places_are_due else ())]

    def _take_unrecorded_parameters(self) -> Sequence[Record]:
        if not self._unrecorded:
            return ()
        roots, self._unrecorded = sorted(self._unrecorded), set()
        return [
            record
            for root in roots
            for record in parameter_records(
                root,
                self._parameters[root],
                self._held_as.get(root, ""),
                evaluated=root in self._evaluated,
                tied_roots=self._first_names.tied_roots(root),
            )
        ]

    def _find_trained(self, optimizers: Iterable[object]) -> None:
        """Finds models that were first called without gradient and have a parameter that an optimizer steps."""
        if not self._evaluated:
            return
        stepped = {id(parameter) for optimizer in optimizers for parameter in _parameters_stepped_by(optimizer)}
        for root in sorted(self._evaluated):
            model = self._topology.model(root)
            if model is not None and not stepped.isdisjoint(map(id, parameters_in(model))):
                self._evaluated.remove(root)
                self._unrecorded.add(root)

    def place_records(self) -> Iterator[Record]:
        """Yields topology and MoE layers if they changed since their last record: groups may appear late."""
        self._places_are_due = False
        layers, topology = place_layers(self._layers, self._topology.topology(), self._rank)
        topology = self._with_note_on_uncut_parameters(topology)
        if self._last_places is None or self._last_places[0] != topology:
            yield topology
        found = ExpertLayers(layers, tuple(self._suspects))
        is_new = self._last_places is None or self._last_places[1] != found
        if is_new and (found.layers or found.suspects):
            yield found
        self._last_places = topology, found

    def _with_note_on_uncut_parameters(self, topology: Topology) -> Topology:
        """Adds a note if no parameter shows tensor parallelism: plain tensors that a script cuts look like copies."""
        ways, tp_axes = topology.sizes["tp"], {"tp", "etp"}
        known = (p for parameters in self._parameters.values() for p in parameters)
        if ways == 1 or not self._parameters or any(tp_axes & {*p.sharded, *p.split} for p in known):
            return topology
        note = f"tp {ways}, but no parameter shows that it is cut over tp ranks: all are counted as copies"
        return replace(topology, notes=(*topology.notes, note))

    def _add_named_by_script(self, row: int) -> None:
        """Adds the doubtful layer of a row: the script says that it is one."""
        for one in self._unnamed:
            if one.layer.row == row and one.has_router and not one.is_decided:
                one.verdict = Verdict(Seen.EXPERTS)
                self._add_judged([one])

    def _judge_unnamed(self) -> None:
        """Adds the layers and the suspects that a counted step has shown among those that no name tells."""
        self._add_judged([one for one in self._unnamed if one.is_due])

    def _add_judged(self, candidates: Sequence[UnnamedLayer]) -> None:
        judged = judge(candidates, self.tree.rows, [layer.row for layer in self._layers])
        for one in candidates:
            one.verdict = Verdict(Seen.NOTHING)
        if not judged.layers and not judged.suspects:
            return
        rows = {layer.row for layer in judged.layers}
        kept = [one for one in self._suspects if one.row not in rows]
        suspected = {one.row for one in kept}
        self._suspects = [*kept, *(one for one in judged.suspects if one.row not in suspected)]
        self._layers += judged.layers
        for root in {self.tree.rows[row].root for row in rows}:
            layers = [layer for layer in judged.layers if self.tree.rows[layer.row].root == root]
            self._parameters[root] = with_kinds(self._parameters.get(root, ()), self.tree.rows, layers)
            self._unrecorded.add(root)
        self._places_are_due = True

    def _find_layers(self, module: nn.Module, row: int) -> list[MoeLayer]:
        return list(find_moe_layers(module, row, self.tree.rows, self._stacks.experts, self._size_of))

    def _size_of(self, axis: str) -> int:
        return self._topology.topology().sizes.get(axis, 1)

    def _add_parameters(self, module: nn.Module, row: int, layers: list[MoeLayer]) -> None:
        """Adds the parameters of ``module``, at ``row``, to its root: the last record of a root describes them all."""
        found = parameters_of(module, row, self.tree.rows, layers, self._stacks, self._first_names)
        root = self.tree.rows[row].root
        if found or root not in self._parameters:
            self._parameters.setdefault(root, []).extend(found)
            self._unrecorded.add(root)
        if self.tree.rows[row].parent < 0 and found:
            self._name_models()

    def _name_models(self) -> None:
        """Finds the attributes that hold the models, if there are several models with parameters."""
        several = [root for root, parameters in self._parameters.items() if parameters]
        for root in several if len(several) > 1 else ():
            model = self._topology.model(root)
            if root not in self._held_as and model is not None:
                self._held_as[root] = self._held_names.find(model)[:_MAX_TEXT]
                if self._held_as[root]:
                    self._unrecorded.add(root)


def _parameters_stepped_by(optimizer: object) -> Iterator[object]:
    """Yields the parameters in the groups of an optimizer; nothing if it has no groups like those of torch."""
    groups = getattr(optimizer, "__dict__", {}).get("param_groups")
    for group in groups if isinstance(groups, list) else ():
        if isinstance(group, dict):
            yield from group.get("params", ())


def _is_compiler_made(module: nn.Module) -> bool:
    """Whether dynamo made this module for a compiled region, which may serve several modules of one class."""
    fx = sys.modules.get("torch.fx")
    return fx is not None and isinstance(module, fx.GraphModule)
