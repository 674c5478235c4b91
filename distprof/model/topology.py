"""This rank's topology: combines the script's declaration with the evidence of stacks, meshes and process groups."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from distprof.errors import UsageError
from distprof.frameworks import dtensor_shards
from distprof.frameworks.protocol import Framework
from distprof.frameworks.registry import FrameworkRegistry
from distprof.frameworks.torch_native import reducer_groups
from distprof.records import ASSUMED, OwnAxes, Stage, Topology
from distprof.topology import meshes, process_groups
from distprof.topology.axes import AxisEvidence, declared_topology, merge_declared, resolve, without_declaration
from distprof.topology.declared import current
from distprof.topology.meshes import MeshRecorder, SeenMesh


class RankTopology:
    """The topology of one rank.  Keeps no model alive."""

    def __init__(self, rank: int, world_size: int, watch: MeshRecorder, stacks: FrameworkRegistry) -> None:
        self._rank = rank
        self._world_size = world_size
        self._watch = watch
        self._stacks = stacks
        self._models: dict[int, weakref.ref[nn.Module]] = {}  # by root
        self._stages: list[Stage] = []
        self._wrapper_claims: list[AxisEvidence] = []
        self._shard_claims: dict[int, tuple[AxisEvidence, ...]] = {}  # by root, from how its parameters are cut
        self._mesh_topologies: dict[int, Topology] = {}  # by root, from its own meshes; kept, as models may be freed

    def add_model(self, model: nn.Module, root: int) -> None:
        """Adds a model that begins its first forward, as number ``root``."""
        self._models[root] = weakref.ref(model)
        pipelining = self._stacks.pipelining
        stage = self._stacks.ask(pipelining, lambda pipelining: pipelining.stage_of(model))
        if stage is not None:
            self._stages.append(Stage(root, *stage))

    def replace_model(self, model: nn.Module, root: int) -> None:
        """Replaces a freed model by another of the same structure, which has taken over its rows."""
        self._models[root] = weakref.ref(model)

    def model(self, root: int) -> nn.Module | None:
        """Returns the model with this number, if it is still alive."""
        reference = self._models.get(root)
        return None if reference is None else reference()

    def reducer_groups(self) -> list[object]:
        """Returns the groups that DDP's reducers use; none with meshes, whose collectives C++ code starts, too."""
        models = [model for reference in self._models.values() if (model := reference()) is not None]
        return [] if self._watch.seen else list(reducer_groups(models))

    def topology(self) -> Topology:
        """Returns the topology as far as it is known now: groups may appear late."""
        by_root = {root: model for root, reference in self._models.items() if (model := reference()) is not None}
        models = list(by_root.values())
        seen_groups, seen_meshes = process_groups.groups(), self._seen_meshes(models)
        fakes = process_groups.fake_group_axes(seen_groups)
        shard_claims = self._all_shard_claims(by_root)
        # Models may be freed by now: then the last claims of their wrappers hold.
        wrapper_claims = [*self._stack_claims([self._stacks.wrappers], models)] or self._wrapper_claims
        self._wrapper_claims = wrapper_claims
        claims = [
            *self._stack_claims(self._stacks.imported(), models),
            *shard_claims,
            *meshes.mesh_evidence(seen_meshes, fakes),
            *wrapper_claims,
            *process_groups.group_evidence(seen_groups, meshes_were_seen=bool(seen_meshes)),
        ]
        seen = self._with_declaration(resolve(claims, self._rank, self._world_size))
        settled = {frozenset(claim.ranks) for claim in (*shard_claims, *wrapper_claims)}
        odd = meshes.unknown_dimension_names(seen_meshes, settled)
        return replace(
            seen,
            meshes=tuple(seen.mesh for seen in seen_meshes),
            notes=(*seen.notes, *dict.fromkeys(odd), *self._stacks.failures.values()),
            groups=process_groups.records(seen_groups, self._world_size),
            stages=tuple(self._stages),
            roots=tuple(self._own_axes(by_root, fakes, seen)),
        )

    def _own_axes(
        self, models: Mapping[int, nn.Module], fakes: Collection[frozenset[int]], seen: Topology
    ) -> Iterator[OwnAxes]:
        """Yields the axes of each model whose own meshes differ from the job's, if the models' meshes differ."""
        for root, model in models.items() if len(self._models) > 1 else ():
            found = self._mesh_topology(model, fakes)
            if found is not None:
                self._mesh_topologies[root] = found
        if len({tuple(sorted(topology.sizes.items())) for topology in self._mesh_topologies.values()}) > 1:
            for root, topology in self._mesh_topologies.items():
                if topology.sizes != {axis: seen.sizes.get(axis, 1) for axis in topology.sizes}:
                    yield OwnAxes(root, topology.sizes, topology.coordinates)

    def _mesh_topology(self, model: nn.Module, fakes: Collection[frozenset[int]]) -> Topology | None:
        """Returns the topology by the model's own meshes; None if no parameter lies on a mesh with known names."""
        own = self._stacks.ask(self._stacks.wrappers, lambda _: meshes.meshes_of_parameters([model])) or []
        claims = [claim for claim in meshes.mesh_evidence(own, fakes) if claim.source != ASSUMED]
        return resolve(claims, self._rank, self._world_size) if claims else None

    def _stack_claims(
        self, stacks: Iterator[Framework] | Sequence[Framework], models: list[nn.Module]
    ) -> Iterator[AxisEvidence]:
        for stack in stacks:
            groups = self._stacks.ask(stack, lambda stack: stack.groups(models, self._rank)) or {}
            yield from (AxisEvidence(stack.name, axis, tuple(ranks)) for axis, ranks in groups.items())

    def _all_shard_claims(self, models: Mapping[int, nn.Module]) -> list[AxisEvidence]:
        """Returns the claims from all models' parameters; for freed models those found last."""
        for root, model in models.items():
            self._shard_claims[root] = self._shard_claims_of(model) or self._shard_claims.get(root, ())
        return [claim for claims in self._shard_claims.values() for claim in claims]

    def _shard_claims_of(self, model: nn.Module) -> tuple[AxisEvidence, ...]:
        return (
            self._stacks.ask(self._stacks.wrappers, lambda _: tuple(dtensor_shards.tensor_parallel_evidence(model)))
            or ()
        )

    def _seen_meshes(self, models: list[nn.Module]) -> list[SeenMesh]:
        """Returns the meshes whose creation was recorded, else those of the models' parameters."""
        return (
            self._watch.seen
            or self._stacks.ask(self._stacks.wrappers, lambda _: meshes.meshes_of_parameters(models))
            or []
        )

    def _with_declaration(self, seen: Topology) -> Topology:
        declaration = current()
        if declaration is None:
            return seen
        try:
            return merge_declared(
                declared_topology(declaration.sizes, declaration.coordinates, self._rank, self._world_size), seen
            )
        except UsageError as error:
            return without_declaration(seen, error)
