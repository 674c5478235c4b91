"""Where every rank stands: the sizes of the parallel axes, and each rank's coordinates, agreed over the ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distprof.merge.load import LoadedRun
from distprof.merge.rankdata import RankData
from distprof.merge.report import TopologyInfo
from distprof.merge.words import plural, rank_names
from distprof.records import AXES, Topology

ASSUMED = "assumed"
#: Axes whose sizes multiply to the world size; experts are spread over ranks that these place.
_WORLD_AXES = ("dp", "cp", "tp", "pp")
#: Axes whose ranks wait for each other in the middle of an iteration.
_GROUPED = ("ep", "tp", "cp", "pp")


@dataclass(frozen=True)
class Layout:
    """``coordinates`` has every axis, and mp, for every recorded rank."""

    info: TopologyInfo
    coordinates: dict[int, dict[str, int]]
    notes: tuple[str, ...]

    def role(self, rank: int) -> tuple[int, ...]:
        """A rank's role: its coordinates but dp and ep.  Ranks of one role do the same work."""
        return tuple(self.coordinates[rank][axis] for axis in AXES if axis not in ("dp", "ep"))

    def groups(self, rank: int, ranks: Iterable[int]) -> dict[str, tuple[int, ...]]:
        """By axis: those of ``ranks`` that stand in one group with ``rank`` and itself, where there are others."""
        found = {axis: tuple(other for other in ranks if self._together(rank, other, axis)) for axis in _GROUPED}
        return {axis: members for axis, members in found.items() if len(members) > 1}

    def _together(self, one: int, other: int, axis: str) -> bool:
        if axis == "ep":
            return self._expert_group(one) == self._expert_group(other)
        mine, theirs = self.coordinates[one], self.coordinates[other]
        return all(mine[own] == theirs[own] for own in _WORLD_AXES if own != axis)

    def _expert_group(self, rank: int) -> tuple[int, int]:
        """(pp, number of the ep group within the stage): ep ranks are neighbours on dp x cp, or on dp x cp x tp where
        that alone has room for them.
        """
        place, sizes = self.coordinates[rank], self.info.sizes
        number = place["dp"] * sizes["cp"] + place["cp"]
        if sizes["ep"] > sizes["dp"] * sizes["cp"]:
            number = number * sizes["tp"] + place["tp"]
            return place["pp"], number // sizes["ep"]
        return place["pp"] * sizes["tp"] + place["tp"], number // sizes["ep"]

    def piece(self, rank: int, axes: Iterable[str]) -> tuple[int, ...]:
        """A rank's coordinates on some axes; an axis that this version does not know counts as not split."""
        return tuple(self.coordinates[rank].get(axis, 0) for axis in axes)


def layout_of(run: LoadedRun) -> Layout:
    """The layout most ranks agree on; disagreement and assumptions become notes."""
    seen = [(data, data.topology) for data in run.ranks if data.topology is not None]
    votes = Counter((topology.source, tuple(_sizes(topology).items())) for _, topology in seen)
    source, sizes = _assumed(run.world_size)
    if votes:
        # Counter keeps the order of ranks, so that the lowest rank's wins a tie.
        source, chosen = votes.most_common(1)[0][0]
        sizes = dict(chosen)
    return Layout(
        info=TopologyInfo(source=source, sizes=sizes),
        coordinates={data.rank: _coordinates(data) for data in run.ranks},
        notes=_notes(run, source, sizes, seen),
    )


def _assumed(world_size: int) -> tuple[str, dict[str, int]]:
    return ASSUMED, {**dict.fromkeys((*AXES, "mp"), 1), "dp": world_size}


def _sizes(topology: Topology) -> dict[str, int]:
    sizes = {axis: max(1, topology.sizes.get(axis, 1)) for axis in AXES}
    return {**sizes, "mp": sizes["tp"] * sizes["pp"]}


def _coordinates(data: RankData) -> dict[str, int]:
    if data.topology is None:
        return {**dict.fromkeys((*AXES, "mp"), 0), "dp": data.rank}
    own = {axis: data.topology.coordinates.get(axis, 0) for axis in AXES}
    return {**own, "mp": data.topology.coordinates.get("mp", own["pp"] * _sizes(data.topology)["tp"] + own["tp"])}


def _notes(
    run: LoadedRun, source: str, sizes: dict[str, int], seen: Sequence[tuple[RankData, Topology]]
) -> tuple[str, ...]:
    notes = []
    if source == ASSUMED and run.world_size > 1:
        notes.append(
            "data parallel assumed: the script named no DeviceMesh dimensions and declared nothing; if its ranks also "
            "split tensors, stages or experts, say so with distprof.set_topology(tp=..., pp=..., ep=...)"
        )
    others = [data.rank for data, topology in seen if _sizes(topology) != sizes]
    if others:
        notes.append(f"{rank_names(others)} saw other sizes of the parallel axes: shown is what most ranks saw")
    product = 1
    for axis in _WORLD_AXES:
        product *= sizes[axis]
    if product != run.world_size:
        factors = " x ".join(f"{axis} {sizes[axis]}" for axis in _WORLD_AXES)
        notes.append(
            f"the parallel axes do not make up the job: {factors} is {plural(product, 'rank')}, "
            f"the world size is {run.world_size:,}"
        )
    spoken = dict.fromkeys(note for _, topology in seen for note in topology.notes)
    return (*notes, *spoken)
