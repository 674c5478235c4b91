"""Axes of parallelism: which names mean which axis, and what several sources together say.  Knows nothing of torch."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from distprof.errors import UsageError
from distprof.records import AXES, Topology

#: Names of mesh dimensions and groups in torch, FSDP, torchtitan, transformers, accelerate and DeepSpeed, and the axis
#: that each belongs to.  The dimensions of one mesh that belong to one axis multiply (dp_replicate x dp_shard), the
#: later one varying fastest.
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
#: Names that are axes of their own beside the one that they belong to.
FINE_NAMES = {
    "dp_replicate": "dp_replicate",
    "replicate": "dp_replicate",
    "dp_shard": "dp_shard",
    "shard": "dp_shard",
    "sp": "sp",
    "sequence_parallel": "sp",
}

DECLARED, ASSUMED = "declared", "assumed"
_PRODUCT = ("dp", "cp", "tp", "pp")  # these multiply to the world; ep lies across them


@dataclass(frozen=True)
class AxisEvidence:
    """What one source says of one axis: ``ranks``, this rank among them, in the order of their coordinates on it."""

    source: str
    axis: str
    ranks: tuple[int, ...]


def axis_of(name: str) -> str | None:
    """The axis that a mesh dimension or a group of this name belongs to."""
    return AXIS_OF_NAME.get(name.lower())


def is_data_axis(name: str) -> bool:
    """Whether sharding over this mesh dimension is data parallel (FSDP, ZeRO): every rank computes with the whole."""
    return axis_of(name) in ("dp", "edp")


def resolve(claims: Iterable[AxisEvidence], rank: int, world_size: int) -> Topology:
    """The topology that the ``claims``, the most trusted first, make together.

    Of several that speak of one axis the first holds.  One that cannot be true beside those before it (its ranks are
    already told apart by another axis, or the sizes would not divide the world) is passed over.  Both are said in
    notes.  What no axis accounts for is data parallel, ``assumed``; sizes that make no world leave nothing but that.
    """
    held: dict[str, AxisEvidence] = {}
    notes: list[str] = []
    for claim in claims:
        if rank not in claim.ranks or len(set(claim.ranks)) < len(claim.ranks):
            continue
        if len(claim.ranks) == 1 and claim.axis not in AXES:  # a finer axis that splits nothing
            continue
        why = _against(claim, held, world_size)
        if why is None:
            held.setdefault(claim.axis, claim)
        elif why:
            notes.append(f"{why}; the first is shown")
    return _completed(held, list(dict.fromkeys(notes)), rank, world_size)


def declared(sizes: Mapping[str, int], coordinates: Mapping[str, int], rank: int, world_size: int) -> Topology:
    """The topology that the script declared; coordinates that it left out follow from the rank, tp varying fastest,
    then cp, dp, pp; ep over the ranks of a pipeline stage.

    Raises UsageError for unknown axes, for sizes that do not multiply to the world size, and for
    coordinates beyond them.
    """
    unknown = sorted({*sizes, *coordinates} - {*_PRODUCT, "ep"})
    if unknown:
        raise UsageError(f"set_topology knows the axes dp, tp, pp, cp and ep, not {', '.join(unknown)}")
    said = _numbers(sizes, 1)
    others = prod(size for axis, size in said.items() if axis in _PRODUCT and axis != "dp")
    full = {"dp": max(1, world_size // others), "tp": 1, "pp": 1, "cp": 1, "ep": 1} | said
    if full["dp"] * others != world_size:
        raise UsageError(_no_world(full, world_size))
    stage = world_size // full["pp"]
    if stage % full["ep"]:
        raise UsageError(f"ep {full['ep']} does not divide the {stage} ranks that work on one set of layers")
    places = _in_order(rank, full) | _numbers(coordinates, 0)
    for axis, size in full.items():
        if places[axis] >= size:
            raise UsageError(f"coordinate {places[axis]} on {axis} is not below its size, {size}")
    return _topology(full, places, dict.fromkeys(_PRODUCT, DECLARED) | dict.fromkeys(said, DECLARED), [])


def without_declaration(topology: Topology, why: UsageError) -> Topology:
    """``topology``, with a note that what the script declared was passed over."""
    return replace(topology, notes=(f"set_topology was passed over: {why}", *topology.notes))


def merge_declared(said: Topology, seen: Topology) -> Topology:
    """What the script ``said``, and what was ``seen`` in the stack of axes that it did not speak of; with a note for
    each axis of which the two tell different sizes.
    """
    notes = [
        f"{DECLARED} says {axis} {said.sizes[axis]}, {source} says {axis} {seen.sizes[axis]}; the first is shown"
        for axis, source in seen.sources.items()
        if source != ASSUMED and axis in said.sources and said.sizes[axis] != seen.sizes[axis]
    ]
    finer = [axis for axis in seen.sources if axis not in said.sources]
    return replace(
        said,
        sizes=said.sizes | {axis: seen.sizes[axis] for axis in finer},
        coordinates=said.coordinates | {axis: seen.coordinates[axis] for axis in finer},
        sources=said.sources | {axis: seen.sources[axis] for axis in finer},
        notes=(*said.notes, *notes),
    )


def _against(claim: AxisEvidence, held: Mapping[str, AxisEvidence], world_size: int) -> str | None:
    """Why ``claim`` does not hold beside the others: None if it does, empty if it says nothing new."""
    axis, size = claim.axis, len(claim.ranks)
    other = held.get(axis)
    if other is None and axis in _PRODUCT:
        other = next((held[a] for a in _PRODUCT if a in held and len({*held[a].ranks} & {*claim.ranks}) > 1), None)
        if other is None and size > 1 and world_size % (size * _product(held)):
            said = f"{claim.source} says {axis} {size}"
            return f"{said}, which does not divide a world of {world_size} ranks beside the rest"
    if other is None:
        return None if size <= world_size else ""
    if size == 1 or other.ranks == claim.ranks:
        return ""
    if axis == "dp" and "cp" in held and size == len(held["dp"].ranks) * len(held["cp"].ranks):
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


def _product(held: Mapping[str, AxisEvidence]) -> int:
    return prod(len(held[axis].ranks) for axis in _PRODUCT if axis in held)


def _completed(held: dict[str, AxisEvidence], notes: list[str], rank: int, world_size: int) -> Topology:
    """Fill in the axes not claimed: dp takes what the others leave of the world."""
    if "dp" in held and _product(held) != world_size:
        if held["dp"].source != ASSUMED:
            sizes = {axis: len(held[axis].ranks) if axis in held else 1 for axis in _PRODUCT}
            said = f"{held['dp'].source} says dp {sizes['dp']}; {_no_world(sizes, world_size)}"
            notes = [f"{said}: pure data parallel is assumed instead", *notes]
            held = {axis: claim for axis, claim in held.items() if axis not in _PRODUCT}
        held.pop("dp", None)
    sizes = {"dp": 1, "tp": 1, "pp": 1, "cp": 1, "ep": 1} | {axis: len(c.ranks) for axis, c in held.items()}
    places = dict.fromkeys(sizes, 0) | {axis: claim.ranks.index(rank) for axis, claim in held.items()}
    sources = {axis: claim.source for axis, claim in held.items()}
    if "dp" not in held:
        others = [held[axis] for axis in _PRODUCT if axis in held]
        sizes["dp"], places["dp"], regular = _rest(others, rank, world_size)
        sources["dp"] = ASSUMED
        if not regular:
            notes.append("the groups of ranks are not evenly spaced: coordinates on dp are assumed")
    return _topology(sizes, places, sources, notes)


def _rest(claims: Sequence[AxisEvidence], rank: int, world_size: int) -> tuple[int, int, bool]:
    """Size of what the axes leave of the world, this rank's place in it, and whether the axes are spaced so evenly that
    the place is sure: each rank's place is then that of the rank at the origin of its axes.
    """
    strides = [(len(c.ranks), c.ranks[1] - c.ranks[0]) for c in claims if len(c.ranks) > 1]

    def origin(of: int) -> int:
        return of - sum(of // stride % size * stride for size, stride in strides)

    regular = all(
        stride > 0 and all(r // stride % size == place for place, r in enumerate(claim.ranks))
        for claim, (size, stride) in zip((c for c in claims if len(c.ranks) > 1), strides, strict=True)
    )
    size = world_size // prod(size for size, _ in strides)
    origins = sorted({origin(each) for each in range(world_size)}) if regular else []
    if len(origins) == size:
        return size, origins.index(origin(rank)), True
    return size, rank % size, size == 1


def _topology(
    sizes: dict[str, int], coordinates: dict[str, int], sources: dict[str, str], notes: Sequence[str]
) -> Topology:
    said = [source for source in sources.values() if source != ASSUMED]
    sizes["mp"] = sizes["tp"] * sizes["pp"]
    coordinates["mp"] = coordinates["pp"] * sizes["tp"] + coordinates["tp"]
    source = max(said, key=said.count) if said else ASSUMED
    return Topology(source, sizes, coordinates, notes=tuple(notes), sources=sources)


def _no_world(sizes: Mapping[str, int], world_size: int) -> str:
    shown = " x ".join(f"{axis} {sizes[axis]}" for axis in _PRODUCT)
    return f"{shown} is {prod(sizes[axis] for axis in _PRODUCT)}, but the world has {world_size} ranks"


def _numbers(said: Mapping[str, int], least: int) -> dict[str, int]:
    for axis, number in said.items():
        if isinstance(number, bool) or not hasattr(number, "__index__") or number < least:
            raise UsageError(f"{axis}={number!r}: give a whole number of at least {least}")
    return {axis: operator.index(number) for axis, number in said.items()}


def _in_order(rank: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Megatron's order of ranks: tp varies fastest, then cp, then dp, then pp; ep over the ranks of one stage."""
    coordinates, rest = {}, rank
    for axis in ("tp", "cp", "dp", "pp"):
        coordinates[axis], rest = rest % sizes[axis], rest // sizes[axis]
    data = coordinates["dp"] * sizes["cp"] + coordinates["cp"]
    spans_tp = sizes["ep"] > sizes["dp"] * sizes["cp"]
    coordinates["ep"] = (data * sizes["tp"] + coordinates["tp"] if spans_tp else data) % sizes["ep"]
    return coordinates
