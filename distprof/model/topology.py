"""Where this rank stands: what the script declared, its stacks, its meshes and its groups say, put together."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from distprof.errors import UsageError
from distprof.frameworks import dtensor_shards
from distprof.frameworks.protocol import Framework
from distprof.frameworks.registry import FrameworkRegistry
from distprof.records import OwnAxes, Stage, Topology
from distprof.topology import meshes, process_groups
from distprof.topology.axes import ASSUMED, AxisEvidence, declared, merge_declared, resolve, without_declaration
from distprof.topology.declared import current
from distprof.topology.meshes import MeshRecorder, SeenMesh


class RankTopology:
    """Of one rank.  Holds no model alive."""

    def __init__(self, rank: int, world_size: int, watch: MeshRecorder, stacks: FrameworkRegistry) -> None:
        self._rank = rank
        self._world_size = world_size
        self._watch = watch
        self._stacks = stacks
        self._models: dict[int, weakref.ref[nn.Module]] = {}  # by root
        self._stages: list[Stage] = []
        self._by_wrappers: list[AxisEvidence] = []
        self._by_pieces: dict[int, tuple[AxisEvidence, ...]] = {}  # by root, what the cuts of its parameters tell
        self._on_meshes: dict[int, Topology] = {}  # by root, what its own meshes tell; models may be gone in the end

    def met(self, model: nn.Module, root: int) -> None:
        """A model begins its first forward, as number ``root``."""
        self._models[root] = weakref.ref(model)
        pipelining = self._stacks.pipelining
        stage = self._stacks.ask(pipelining, lambda pipelining: pipelining.stage_of(model))
        if stage is not None:
            self._stages.append(Stage(root, *stage))

    def met_again(self, model: nn.Module, root: int) -> None:
        """Another model of the same build has taken the place of one that is gone."""
        self._models[root] = weakref.ref(model)

    def model(self, root: int) -> nn.Module | None:
        """The one with this number, if it lives."""
        reference = self._models.get(root)
        return None if reference is None else reference()

    def topology(self) -> Topology:
        """As far as it is known by now: groups may appear late."""
        by_root = {root: model for root, reference in self._models.items() if (model := reference()) is not None}
        models = list(by_root.values())
        seen_groups, seen_meshes = process_groups.groups(), self._seen_meshes(models)
        fakes = process_groups.fake_group_axes(seen_groups)
        by_pieces = self._claims_of_pieces(by_root)
        # Models may be gone in the end, and with them what their wrappers told.
        by_wrappers = [*self._claims_of([self._stacks.wrappers], models)] or self._by_wrappers
        self._by_wrappers = by_wrappers
        claims = [
            *self._claims_of(self._stacks.believed(), models),
            *by_pieces,
            *meshes.mesh_evidence(seen_meshes, fakes),
            *by_wrappers,
            *process_groups.group_evidence(seen_groups, meshes_were_seen=bool(seen_meshes)),
        ]
        seen = self._with_declaration(resolve(claims, self._rank, self._world_size))
        settled = {frozenset(claim.ranks) for claim in (*by_pieces, *by_wrappers)}
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
        """Of models whose own meshes disagree with each other: what is theirs and not the job's."""
        for root, model in models.items() if len(self._models) > 1 else ():
            told = self._told_by_meshes(model, fakes)
            if told is not None:
                self._on_meshes[root] = told
        if len({tuple(sorted(topology.sizes.items())) for topology in self._on_meshes.values()}) > 1:
            for root, topology in self._on_meshes.items():
                if topology.sizes != {axis: seen.sizes.get(axis, 1) for axis in topology.sizes}:
                    yield OwnAxes(root, topology.sizes, topology.coordinates)

    def _told_by_meshes(self, model: nn.Module, fakes: Collection[frozenset[int]]) -> Topology | None:
        """None where no parameter lies on a mesh whose names mean something."""
        own = self._stacks.ask(self._stacks.wrappers, lambda _: meshes.meshes_of_parameters([model])) or []
        claims = [claim for claim in meshes.mesh_evidence(own, fakes) if claim.source != ASSUMED]
        return resolve(claims, self._rank, self._world_size) if claims else None

    def _claims_of(
        self, stacks: Iterator[Framework] | Sequence[Framework], models: list[nn.Module]
    ) -> Iterator[AxisEvidence]:
        for stack in stacks:
            said = self._stacks.ask(stack, lambda stack: stack.groups(models, self._rank)) or {}
            yield from (AxisEvidence(stack.name, axis, tuple(ranks)) for axis, ranks in said.items())

    def _claims_of_pieces(self, models: Mapping[int, nn.Module]) -> list[AxisEvidence]:
        """They may be gone in the end."""
        for root, model in models.items():
            self._by_pieces[root] = self._told_by_pieces(model) or self._by_pieces.get(root, ())
        return [claim for claims in self._by_pieces.values() for claim in claims]

    def _told_by_pieces(self, model: nn.Module) -> tuple[AxisEvidence, ...]:
        return self._stacks.ask(self._stacks.wrappers, lambda _: tuple(dtensor_shards.claims(model))) or ()

    def _seen_meshes(self, models: list[nn.Module]) -> list[SeenMesh]:
        """Those that were made under our eyes, or else lie under a parameter."""
        return (
            self._watch.seen
            or self._stacks.ask(self._stacks.wrappers, lambda _: meshes.meshes_of_parameters(models))
            or []
        )

    def _with_declaration(self, seen: Topology) -> Topology:
        said = current()
        if said is None:
            return seen
        try:
            return merge_declared(declared(said.sizes, said.coordinates, self._rank, self._world_size), seen)
        except UsageError as error:
            return without_declaration(seen, error)
