"""Axes of parallelism: which names mean which axis, and what follows from sizes.  Knows nothing of torch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

from distprof.errors import UsageError
from distprof.records import Mesh, Topology

#: Names of mesh dimensions in torch, FSDP, torchtitan, transformers and accelerate, and the axis that each belongs to.
#: The dimensions of one mesh that belong to one axis multiply (dp_replicate x dp_shard), the later one varying fastest.
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
    "ep": "ep",
    "expert": "ep",
    "expert_parallel": "ep",
}

#: Dimensions over which experts are replicated: data parallel for them, but no axis of the job's own.
_DATA_OF_EXPERTS = ("edp", "efsdp", "expert_data_parallel")

_PRODUCT = ("dp", "cp", "tp", "pp")  # these multiply to the world; ep lies across them


def is_data_axis(name: str) -> bool:
    """Whether sharding over this mesh dimension is data parallel (FSDP, ZeRO): every rank computes with the whole."""
    return AXIS_OF_NAME.get(name) == "dp" or name in _DATA_OF_EXPERTS


def from_meshes(meshes: tuple[Mesh, ...], rank: int, world_size: int) -> Topology:
    """The topology that mesh dimension names tell, or pure data parallel, ``assumed``, when they tell none."""
    sizes: dict[str, int] = {}
    coordinates: dict[str, int] = {}
    notes: list[str] = []
    for mesh in sorted(meshes, key=lambda mesh: -len(mesh.names)):  # the whole mesh before its slices
        if not mesh.coordinate:
            continue
        for axis, (size, coordinate) in _axes_of(mesh).items():
            if axis not in sizes:
                sizes[axis], coordinates[axis] = size, coordinate
            elif (sizes[axis], coordinates[axis]) != (size, coordinate) and not _is_slice(mesh, meshes):
                notes.append(
                    f"two device meshes disagree on {axis}: {sizes[axis]} and {size} "
                    f"(dimensions {', '.join(mesh.names)}); the first is shown"
                )
    return _completed("device_mesh", sizes, coordinates, meshes, notes, rank, world_size)


def declared(sizes: Mapping[str, int], coordinates: Mapping[str, int], rank: int, world_size: int) -> Topology:
    """The topology that the script declared; coordinates that it left out follow from the rank, tp varying fastest,
    then cp, dp, pp; ep over the ranks of a pipeline stage.

    Raises UsageError for unknown axes, for sizes that do not multiply to the world size, and for
    coordinates beyond them.
    """
    unknown = sorted({*sizes, *coordinates} - {*_PRODUCT, "ep"})
    if unknown:
        raise UsageError(f"set_topology knows the axes dp, tp, pp, cp and ep, not {', '.join(unknown)}")
    topology = _completed("declared", _numbers(sizes, 1), _numbers(coordinates, 0), (), [], rank, world_size)
    if topology.notes:
        raise UsageError(topology.notes[0])
    stage = world_size // topology.sizes["pp"]
    if stage % topology.sizes["ep"]:
        raise UsageError(f"ep {topology.sizes['ep']} does not divide the {stage} ranks that work on one set of layers")
    for axis, size in topology.sizes.items():
        if topology.coordinates[axis] >= size:
            raise UsageError(f"coordinate {topology.coordinates[axis]} on {axis} is not below its size, {size}")
    return replace(topology, source="declared")


def _numbers(said: Mapping[str, int], least: int) -> dict[str, int]:
    for axis, number in said.items():
        if isinstance(number, bool) or not hasattr(number, "__index__") or number < least:
            raise UsageError(f"{axis}={number!r}: give a whole number of at least {least}")
    return {axis: operator.index(number) for axis, number in said.items()}


def _axes_of(mesh: Mesh) -> dict[str, tuple[int, int]]:
    """axis -> (size, this rank's coordinate) of one mesh."""
    axes: dict[str, tuple[int, int]] = {}
    for name, size, coordinate in zip(mesh.names, mesh.shape, mesh.coordinate, strict=True):
        axis = AXIS_OF_NAME.get(name)
        if axis is not None:
            so_far = axes.get(axis, (1, 0))
            axes[axis] = (so_far[0] * size, so_far[1] * size + coordinate)
    return axes


def _is_slice(mesh: Mesh, meshes: tuple[Mesh, ...]) -> bool:
    """Whether a bigger mesh has all these dimensions: then it has said more (dp_replicate x dp_shard, and dp_shard
    alone).
    """
    return any(set(mesh.names) < set(other.names) for other in meshes)


def _completed(
    source: str,
    sizes: dict[str, int],
    coordinates: dict[str, int],
    meshes: tuple[Mesh, ...],
    notes: list[str],
    rank: int,
    world_size: int,
) -> Topology:
    """Fill in the axes not named: dp takes what the others leave of the world, mp is tp x pp."""
    said = bool(sizes)
    others = sizes.get("tp", 1) * sizes.get("pp", 1) * sizes.get("cp", 1)
    sizes = {"dp": max(1, world_size // others), "tp": 1, "pp": 1, "cp": 1, "ep": 1} | sizes
    product = sizes["dp"] * others
    if product != world_size:
        shown = " x ".join(f"{axis} {sizes[axis]}" for axis in _PRODUCT)
        notes = [
            f"{shown} is {product}, but the world has {world_size} ranks: pure data parallel is assumed instead",
            *notes,
        ]
        said, sizes, coordinates = False, {"dp": world_size, "tp": 1, "pp": 1, "cp": 1, "ep": 1}, {}
    coordinates = _coordinates(rank, sizes) | coordinates
    sizes["mp"] = sizes["tp"] * sizes["pp"]
    coordinates["mp"] = coordinates["pp"] * sizes["tp"] + coordinates["tp"]
    return Topology(
        source=source if said else "assumed", sizes=sizes, coordinates=coordinates, meshes=meshes, notes=tuple(notes)
    )


def _coordinates(rank: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Megatron's order of ranks: tp varies fastest, then cp, then dp, then pp; ep over the ranks of one stage."""
    coordinates, rest = {}, rank
    for axis in ("tp", "cp", "dp", "pp"):
        coordinates[axis], rest = rest % sizes[axis], rest // sizes[axis]
    data = coordinates["dp"] * sizes["cp"] + coordinates["cp"]
    spans_tp = sizes["ep"] > sizes["dp"] * sizes["cp"]
    coordinates["ep"] = (data * sizes["tp"] + coordinates["tp"] if spans_tp else data) % sizes["ep"]
    return coordinates
