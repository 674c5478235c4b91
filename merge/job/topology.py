"""The sizes of the parallel axes, and each rank's coordinates on them, from what all ranks recorded.

    last topology of each rank -> the sizes of the best source, then of most ranks
    -> coordinates: a rank's own, or, where it recorded other sizes, by the order of the ranks that agree

Where the sizes do not multiply to the world size, or two ranks share their coordinates, pure data parallel is assumed
instead, and a note gives the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from math import prod

from distprof.merge.job.rank_places import places_by_order
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import TopologyInfo
from distprof.merge.wording import join_words, pluralise
from distprof.plain import dataclass
from distprof.rank_names import rank_names
from distprof.records import (
    ASSUMED,
    AXES,
    DECLARED,
    DEVICE_MESH,
    PARAMETERS,
    PROCESS_GROUPS,
    WORLD_AXES,
    Topology,
    expert_position,
)

#: Sources, the least trusted first; the name of a framework stands between meshes and what the script says.
_TRUST = {ASSUMED: 0, PROCESS_GROUPS: 1, DEVICE_MESH: 2, PARAMETERS: 2, DECLARED: 4}
_FRAMEWORK = 3
#: Sources that see torch's own objects only: neither the script nor a framework has said how the job is parallel.
INFERRED_SOURCES = ("torch", DEVICE_MESH, PROCESS_GROUPS, PARAMETERS, ASSUMED)
#: Axes whose ranks wait for each other in the middle of an iteration.
_GROUPED = ("ep", "tp", "cp", "pp")
#: Axes whose coordinates tell replicas apart from others.
_OF_PLACE = tuple(axis for axis in AXES if axis not in ("dp", "ep"))

Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class JobTopology:
    """The topology of the job.  ``coordinates`` has every axis, and mp, for every recorded rank."""

    info: TopologyInfo
    coordinates: dict[int, dict[str, int]]
    notes: tuple[str, ...]
    own: dict[int, JobTopology] = field(default_factory=dict)  # by root, of models on axes of their own
    kinds: dict[int, int] = field(default_factory=dict)  # where ranks at one place hold different parameters

    def of(self, root: int) -> JobTopology:
        """Returns the topology of one model."""
        return self.own.get(root, self)

    def place(self, rank: int) -> tuple[int, ...]:
        """Returns a rank's coordinates without dp and ep: ranks at one place are taken for replicas."""
        own = self.coordinates[rank]
        return tuple([own[axis] for axis in _OF_PLACE])

    def role(self, rank: int) -> tuple[int, ...]:
        """Returns the role of a rank: ranks of one role have one place and the same parameters, and do equal work."""
        return (*self.place(rank), self.kinds.get(rank, 0))

    def groups(self, rank: int, ranks: Iterable[int]) -> dict[str, tuple[int, ...]]:
        """Returns by axis the group of ``rank`` among ``ranks``, itself included, where the group has other ranks."""
        found = {axis: tuple(other for other in ranks if self._share_group(rank, other, axis)) for axis in _GROUPED}
        return {axis: members for axis, members in found.items() if len(members) > 1 and self._differ(members, axis)}

    def _differ(self, members: Iterable[int], axis: str) -> bool:
        """Returns whether all coordinates on the axis differ: experts may be spread in another order than assumed."""
        places = [self.coordinates[member].get(axis, 0) for member in members]
        return len(set(places)) == len(places)

    def _share_group(self, one: int, other: int, axis: str) -> bool:
        if axis == "ep":
            return self._expert_group(one) == self._expert_group(other)
        mine, theirs = self.coordinates[one], self.coordinates[other]
        return all(mine[own] == theirs[own] for own in WORLD_AXES if own != axis)

    def _expert_group(self, rank: int) -> tuple[int, int]:
        group, _ = expert_position(self.coordinates[rank], self.info.sizes)
        return group

    def piece(self, rank: int, axes: Iterable[str]) -> tuple[int, ...]:
        """Returns a rank's coordinates on some axes; 0 on an axis that is not known."""
        known = self.coordinates[rank].get
        return tuple([known(axis, 0) for axis in axes])


def job_topology(run: LoadedRun) -> JobTopology:
    """Returns the topology of the best source and of most ranks; disagreement and assumptions become notes."""
    recorded = {data.rank: _RankTopology(data.topology) for data in run.ranks if data.topology is not None}
    sizes = _chosen(recorded, run.world_size)
    agreeing = {rank: one for rank, one in recorded.items() if one.sizes == sizes}
    best = max(agreeing.values(), key=lambda one: one.trust, default=None)
    coordinates = {rank: completed_sizes(one.topology.coordinates, sizes) for rank, one in agreeing.items()}
    wrong = sizes_error(dict(sizes), coordinates, run.world_size)
    if best is None or wrong:
        return _assumed(run, recorded, wrong)
    ranks = [data.rank for data in run.ranks]
    return JobTopology(
        info=TopologyInfo(best.topology.source, dict(sizes), dict(best.topology.sources)),
        coordinates=places_by_order(ranks, coordinates, dict(sizes)),
        notes=_notes(run, recorded, sizes, best.topology.source),
    )


@dataclass(frozen=True)
class _RankTopology:
    """The topology that one rank recorded."""

    topology: Topology

    @cached_property
    def sizes(self) -> Sizes:
        return all_sizes(self.topology.sizes)

    @property
    def trust(self) -> int:
        return _TRUST.get(self.topology.source, _FRAMEWORK)


def all_sizes(known: Mapping[str, int]) -> Sizes:
    """Returns the sizes with every axis, and mp."""
    sizes = {axis: max(1, known.get(axis, 1)) for axis in AXES}
    finer = {axis: size for axis, size in known.items() if axis not in (*AXES, "mp")}
    return tuple({**sizes, "mp": sizes["tp"] * sizes["pp"], **finer}.items())


def _chosen(recorded: Mapping[int, _RankTopology], world_size: int) -> Sizes:
    votes = Counter(one.sizes for one in recorded.values())
    trust = {sizes: max(one.trust for one in recorded.values() if one.sizes == sizes) for sizes in votes}
    # Counter keeps the order of ranks, so that the lowest rank's wins a tie.
    return max(votes, key=lambda sizes: (trust[sizes], votes[sizes]), default=_data_parallel(world_size))


def _data_parallel(world_size: int) -> Sizes:
    return tuple({**dict.fromkeys((*AXES, "mp"), 1), "dp": world_size}.items())


def completed_sizes(known: Mapping[str, int], sizes: Sizes) -> dict[str, int]:
    """Returns a rank's coordinates on every axis of ``sizes``, and mp."""
    place = {axis: known.get(axis, 0) for axis, _ in sizes}
    return place | {"mp": known.get("mp", place["pp"] * dict(sizes)["tp"] + place["tp"])}


def sizes_error(sizes: Mapping[str, int], coordinates: Mapping[int, Mapping[str, int]], world_size: int) -> str:
    """Returns why this cannot be the topology of the job; empty where it can."""
    factors = " x ".join(f"{axis} {sizes[axis]}" for axis in WORLD_AXES)
    product = prod(sizes[axis] for axis in WORLD_AXES)
    if product != world_size:
        return f"{factors} is {pluralise(product, 'rank')}, but the job has {world_size:,}"
    stage = world_size // sizes["pp"]
    if stage % sizes["ep"]:
        return f"ep {sizes['ep']} does not divide the {pluralise(stage, 'rank')} that work on one set of layers"
    taken: dict[tuple[int, ...], int] = {}
    for rank, place in coordinates.items():
        where = tuple(place[axis] for axis in WORLD_AXES)
        if where in taken:
            both = ", ".join(f"{axis} {place[axis]}" for axis in WORLD_AXES)
            return f"{rank_names((taken[where], rank))} say that they stand at one place ({both})"
        taken[where] = rank
    return ""


def _assumed(run: LoadedRun, recorded: Mapping[int, _RankTopology], wrong: str) -> JobTopology:
    sizes = _data_parallel(run.world_size)
    error = f"the parallel axes do not make up the job: {wrong}; pure data parallel is assumed instead" if wrong else ""
    notes = dict.fromkeys(note for one in recorded.values() for note in one.topology.notes)
    advice = [] if run.world_size == 1 or wrong else [_advice(recorded)]
    return JobTopology(
        info=TopologyInfo(ASSUMED, dict(sizes), {}),
        coordinates={data.rank: completed_sizes({"dp": data.rank}, sizes) for data in run.ranks},
        notes=(*([error] if error else []), *advice, *notes),
    )


def _advice(recorded: Mapping[int, _RankTopology]) -> str:
    meshes = (mesh for one in recorded.values() for mesh in one.topology.meshes)
    names = list(dict.fromkeys(name for mesh in meshes for name in mesh.names))
    seen = f"the dimension names of its DeviceMesh ({join_words(names)})" if names else "the script"
    tells = "tell nothing" if names else "named no DeviceMesh dimensions and declared nothing"
    return (
        f"data parallel assumed: {seen} {tells}; if its ranks also split tensors, stages or experts, say so with "
        "distprof.set_topology(tp=..., pp=..., ep=...)"
    )


def _notes(run: LoadedRun, recorded: Mapping[int, _RankTopology], sizes: Sizes, source: str) -> tuple[str, ...]:
    notes = dict.fromkeys(note for one in recorded.values() for note in one.topology.notes)
    advice = [_advice(recorded)] if source == ASSUMED and run.world_size > 1 else []
    return (*advice, *_disagreements(recorded, sizes, source), *notes)


def _disagreements(recorded: Mapping[int, _RankTopology], sizes: Sizes, source: str) -> Iterable[str]:
    """Yields a sentence for each other topology: its ranks, its source, and where it differs."""
    others: dict[tuple[str, Sizes], list[int]] = {}
    for rank, one in recorded.items():
        if one.sizes != sizes:
            others.setdefault((one.topology.source, one.sizes), []).append(rank)
    for (other_source, other), ranks in others.items():
        theirs, shown = _difference(dict(other), dict(sizes))
        yield (
            f"{rank_names(ranks)} {'sees' if len(ranks) == 1 else 'see'} {theirs} ({other_source}), the others {shown} "
            f"({source}): the latter is shown, and the place of {rank_names(ranks)} follows from that of the others"
        )


def _difference(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[str, str]:
    axes: Sequence[str] = [axis for axis in {**other, **one} if one.get(axis, 1) != other.get(axis, 1) and axis != "mp"]
    both = (", ".join(f"{axis} {sizes.get(axis, 1)}" for axis in axes) for sizes in (one, other))
    return next(both), next(both)
