"""Axes of parallelism: maps names to axes, and combines the evidence of several sources.  Does not use torch."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from distprof.errors import UsageError
from distprof.records import ASSUMED, AXES, DECLARED, WORLD_AXES, Topology, expert_position

#: Names of mesh dimensions and groups in torch, FSDP, torchtitan, transformers, accelerate and DeepSpeed -> their axis.
#: Dimensions of one mesh that belong to one axis multiply (dp_replicate x dp_shard); the later one varies fastest.
AXIS_OF_NAME = {
    "dp": "dp",
    "ddp": "dp",
    "data": "dp",
    "data_parallel": "dp",
    "batch": "dp",
    "fsdp": "dp",
    "hsdp": "dp",
    "replicate": "dp",
    "shard": "dp",
    "dp_replicate": "dp",
    "dp_shard": "dp",
    "tp": "tp",
    "tensor": "tp",
    "tensor_parallel": "tp",
    "mp": "tp",
    "model": "tp",
    "pp": "pp",
    "pipe": "pp",
    "pipeline": "pp",
    "pipeline_parallel": "pp",
    "cp": "cp",
    "sp": "cp",
    "context": "cp",
    "context_parallel": "cp",
    "sequence_parallel": "cp",
    "ep": "ep",
    "expert": "ep",
    "expert_parallel": "ep",
    "etp": "etp",
    "expert_tensor_parallel": "etp",
    "edp": "edp",
    "efsdp": "edp",
    "expert_data_parallel": "edp",
}
#: Names that also are an axis of their own, beside the axis that they belong to.
FINE_NAMES = {
    "dp_replicate": "dp_replicate",
    "replicate": "dp_replicate",
    "dp_shard": "dp_shard",
    "shard": "dp_shard",
    "sp": "sp",
    "sequence_parallel": "sp",
}


@dataclass(frozen=True)
class AxisEvidence:
    """One source's evidence of one axis: this rank's group on it, ``ranks`` in the order of their coordinates."""

    source: str
    axis: str
    ranks: tuple[int, ...]


def axis_of(name: str) -> str | None:
    """Returns the axis that a mesh dimension or a group of this name belongs to."""
    return AXIS_OF_NAME.get(name.lower())


def is_data_axis(name: str) -> bool:
    """Whether sharding over this dimension is data parallel (FSDP, ZeRO): every rank computes with whole parameters."""
    return axis_of(name) in ("dp", "edp")


def resolve(claims: Iterable[AxisEvidence], rank: int, world_size: int) -> Topology:
    """Combines the ``claims``, the most trusted first, into one topology.

    The first claim of an axis holds.  A claim that contradicts earlier ones (another axis already separates its ranks,
    or the sizes would not divide the world size) is ignored.  Both cases add a note.  Ranks that no axis accounts for
    are data parallel, ``assumed``; if the sizes do not multiply to the world size, only that assumption remains.
    """
    accepted: dict[str, AxisEvidence] = {}
    notes: list[str] = []
    for claim in claims:
        if rank not in claim.ranks or len(set(claim.ranks)) < len(claim.ranks):
            continue
        if len(claim.ranks) == 1 and claim.axis not in AXES:  # a finer axis of size 1 adds nothing
            continue
        why = _contradiction(claim, accepted, world_size)
        if why is None:
            accepted.setdefault(claim.axis, claim)
        elif why:
            notes.append(f"{why}; the first is shown")
    return _complete(accepted, list(dict.fromkeys(notes)), rank, world_size)


def declared_topology(sizes: Mapping[str, int], coordinates: Mapping[str, int], rank: int, world_size: int) -> Topology:
    """Returns the topology that the script declared.

    Missing coordinates follow from the rank: tp varies fastest, then cp, dp, pp; ep over the ranks of a pipeline stage.
    Raises UsageError for unknown axes, for sizes that do not multiply to the world size, and for coordinates that are
    too large.
    """
    unknown = sorted({*sizes, *coordinates} - {*WORLD_AXES, "ep"})
    if unknown:
        raise UsageError(f"set_topology knows the axes dp, tp, pp, cp and ep, not {', '.join(unknown)}")
    given = _validated(sizes, 1)
    others = prod(size for axis, size in given.items() if axis in WORLD_AXES and axis != "dp")
    full = {"dp": max(1, world_size // others), "tp": 1, "pp": 1, "cp": 1, "ep": 1} | given
    if full["dp"] * others != world_size:
        raise UsageError(_size_mismatch(full, world_size))
    stage = world_size // full["pp"]
    if stage % full["ep"]:
        raise UsageError(f"ep {full['ep']} does not divide the {stage} ranks that work on one set of layers")
    places = _default_coordinates(rank, full) | _validated(coordinates, 0)
    for axis, size in full.items():
        if places[axis] >= size:
            raise UsageError(f"coordinate {places[axis]} on {axis} is not below its size, {size}")
    return _topology(full, places, dict.fromkeys(WORLD_AXES, DECLARED) | dict.fromkeys(given, DECLARED), [])


def without_declaration(topology: Topology, why: UsageError) -> Topology:
    """Returns ``topology`` with a note that the script's declaration is ignored."""
    return replace(topology, notes=(f"set_topology was ignored: {why}", *topology.notes))


def merge_declared(script: Topology, seen: Topology) -> Topology:
    """Returns the declared topology, with the axes of the detected one that the script did not declare.

    Adds a note for each axis whose declared and detected sizes differ.
    """
    notes = [
        f"{DECLARED} says {axis} {script.sizes[axis]}, {source} says {axis} {seen.sizes[axis]}; the first is shown"
        for axis, source in seen.sources.items()
        if source != ASSUMED and axis in script.sources and script.sizes[axis] != seen.sizes[axis]
    ]
    finer = [axis for axis in seen.sources if axis not in script.sources]
    return replace(
        script,
        sizes=script.sizes | {axis: seen.sizes[axis] for axis in finer},
        coordinates=script.coordinates | {axis: seen.coordinates[axis] for axis in finer},
        sources=script.sources | {axis: seen.sources[axis] for axis in finer},
        notes=(*script.notes, *notes),
    )


def _contradiction(claim: AxisEvidence, accepted: Mapping[str, AxisEvidence], world_size: int) -> str | None:
    """Says why ``claim`` contradicts the accepted ones: None if it does not, empty if it says nothing new."""
    axis, size = claim.axis, len(claim.ranks)
    other = accepted.get(axis)
    if other is None and axis in WORLD_AXES:
        others = (accepted[name] for name in WORLD_AXES if name in accepted)
        other = next((one for one in others if len({*one.ranks} & {*claim.ranks}) > 1), None)
        if other is None and size > 1 and world_size % (size * _product(accepted)):
            statement = f"{claim.source} says {axis} {size}"
            return f"{statement}, which does not divide a world of {world_size} ranks beside the rest"
    if other is None:
        return None if size <= world_size else ""
    if size == 1 or other.ranks == claim.ranks:
        return ""
    if axis == "dp" and "cp" in accepted and size == len(accepted["dp"].ranks) * len(accepted["cp"].ranks):
        return ""  # FSDP over both: the batch is split over dp, the sequence over cp
    same_size = other.axis == axis and len(other.ranks) == size
    where = f" (ranks {_listed(other.ranks)} and {_listed(claim.ranks)})" if same_size else ""
    return (
        f"{other.source} says {other.axis} {len(other.ranks)}, {claim.source} says {axis} {size}, "
        f"over some of the same ranks{where}"
    )


def _listed(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8]))
    return f"{shown} ..." if len(ranks) > 8 else shown


def _product(accepted: Mapping[str, AxisEvidence]) -> int:
    return prod(len(accepted[axis].ranks) for axis in WORLD_AXES if axis in accepted)


def _complete(accepted: dict[str, AxisEvidence], notes: list[str], rank: int, world_size: int) -> Topology:
    """Fills in the axes without a claim: dp gets the part of the world that the others leave."""
    if "dp" in accepted and _product(accepted) != world_size:
        if accepted["dp"].source != ASSUMED:
            sizes = {axis: len(accepted[axis].ranks) if axis in accepted else 1 for axis in WORLD_AXES}
            statement = f"{accepted['dp'].source} says dp {sizes['dp']}; {_size_mismatch(sizes, world_size)}"
            notes = [f"{statement}: pure data parallel is assumed instead", *notes]
            accepted = {axis: claim for axis, claim in accepted.items() if axis not in WORLD_AXES}
        accepted.pop("dp", None)
    sizes = {"dp": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1} | {axis: len(c.ranks) for axis, c in accepted.items()}
    places = dict.fromkeys(sizes, 0) | {axis: claim.ranks.index(rank) for axis, claim in accepted.items()}
    sources = {axis: claim.source for axis, claim in accepted.items()}
    if "dp" not in accepted:
        others = [accepted[axis] for axis in WORLD_AXES if axis in accepted]
        sizes["dp"], places["dp"], regular = _remaining_axis(others, rank, world_size)
        sources["dp"] = ASSUMED
        if not regular:
            notes.append("the groups of ranks are not evenly spaced: coordinates on dp are assumed")
    return _topology(sizes, places, sources, notes)


def _remaining_axis(claims: Sequence[AxisEvidence], rank: int, world_size: int) -> tuple[int, int, bool]:
    """Returns the size of the axis that the claimed ones leave, this rank's coordinate on it, and whether that is sure.

    It is sure where the axes are evenly spaced: a rank's coordinate is then that of the rank at the origin of its
    axes.
    """
    strides = [(len(c.ranks), c.ranks[1] - c.ranks[0]) for c in claims if len(c.ranks) > 1]

    regular = all(
        stride > 0 and all(r // stride % size == place for place, r in enumerate(claim.ranks))
        for claim, (size, stride) in zip((c for c in claims if len(c.ranks) > 1), strides, strict=True)
    )
    size = world_size // prod(size for size, _ in strides)
    if regular:
        every = np.arange(world_size)
        origin = every - sum(every // stride % size * stride for size, stride in strides)  # by rank
        different = sorted(set(origin.tolist()))  # np.unique would import numpy.ma in the middle of the job
        if len(different) == size:
            return size, different.index(int(origin[rank])), True
    return size, rank % size, size == 1


def _topology(
    sizes: dict[str, int], coordinates: dict[str, int], sources: dict[str, str], notes: Sequence[str]
) -> Topology:
    known = [source for source in sources.values() if source != ASSUMED]
    sizes["mp"] = sizes["tp"] * sizes["pp"]
    coordinates["mp"] = coordinates["pp"] * sizes["tp"] + coordinates["tp"]
    source = max(known, key=known.count) if known else ASSUMED
    return Topology(source, sizes, coordinates, notes=tuple(notes), sources=sources)


def _size_mismatch(sizes: Mapping[str, int], world_size: int) -> str:
    shown = " x ".join(f"{axis} {sizes[axis]}" for axis in WORLD_AXES)
    return f"{shown} is {prod(sizes[axis] for axis in WORLD_AXES)}, but the world has {world_size} ranks"


def _validated(numbers: Mapping[str, int], least: int) -> dict[str, int]:
    for axis, number in numbers.items():
        if isinstance(number, bool) or not hasattr(number, "__index__") or number < least:
            raise UsageError(f"{axis}={number!r}: give a whole number of at least {least}")
    return {axis: operator.index(number) for axis, number in numbers.items()}


def _default_coordinates(rank: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns coordinates in Megatron's order: tp varies fastest, then cp, dp, pp; ep lies over one stage's ranks."""
    coordinates, rest = {}, rank
    for axis in ("tp", "cp", "dp", "pp"):
        coordinates[axis], rest = rest % sizes[axis], rest // sizes[axis]
    _, coordinates["ep"] = expert_position(coordinates, sizes)
    return coordinates
