"""DTensors: how a parameter is cut, and the axes that follow from it where mesh dimensions have no known names.

A parameter that is cut along such a dimension is sharded by FSDP if its module is, over the same ranks.  Otherwise each
rank computes with its own part: tensor parallelism.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from distprof.frameworks.protocol import ParameterLayout
from distprof.module_walk import children
from distprof.records import PARAMETERS
from distprof.topology.axes import AxisEvidence, axis_of, is_data_axis
from distprof.topology.imported import is_a
from distprof.topology.meshes import seen_mesh

#: Sets of ranks over which FSDP shards: along each dimension of its mesh, and all of it.
Sharding = frozenset[frozenset[int]]
NONE: Sharding = frozenset()


def is_dtensor(parameter: object) -> bool:
    """Whether this is a DTensor; nothing is imported for it."""
    return is_a(parameter, "torch.distributed.tensor", "DTensor")


def dtensor_layout(parameter: Any, sharding: Sharding | None = None) -> ParameterLayout:
    """Returns the layout of a DTensor; ``sharding`` is that of its module.

    Without it (None), dimensions without a known name are assumed to be FSDP's.  Allocates no tensor.
    """
    shape = list(parameter.shape)
    mesh = parameter.device_mesh
    coordinate = mesh.get_coordinate()
    sharded: list[str] = []
    for dimension, (axis, cut) in enumerate(zip(_axes(parameter, sharding), _cuts(parameter), strict=True)):
        if cut is None or mesh.size(dimension) == 1:
            continue
        sharded.append(axis)
        if not is_data_axis(axis) and coordinate is not None:
            shape[cut] = _chunk(shape[cut], mesh.size(dimension), coordinate[dimension])
    return ParameterLayout(
        parameter._local_tensor.numel(), _product(shape), parameter.numel(), sharded=tuple(dict.fromkeys(sharded))
    )


def rank_length(parameter: Any) -> int:
    """Returns the length of a DTensor's dimension 0 on this rank, without data-parallel sharding.

    Dimensions of the mesh without a known name are assumed to be FSDP's.
    """
    mesh, length = parameter.device_mesh, int(parameter.shape[0])
    coordinate = mesh.get_coordinate()
    for dimension, (axis, cut) in enumerate(zip(_axes(parameter, None), _cuts(parameter), strict=True)):
        if cut is not None and cut % parameter.dim() == 0 and coordinate is not None and not is_data_axis(axis):
            length = _chunk(length, mesh.size(dimension), coordinate[dimension])
    return length


def tensor_parallel_evidence(model: nn.Module) -> Iterator[AxisEvidence]:
    """Yields the tensor-parallel groups that no mesh name shows, each once."""
    found: dict[AxisEvidence, None] = {}
    for owner, sharding in shardings(model):
        for parameter in filter(is_dtensor, owner._parameters.values()):
            found |= dict.fromkeys(_parameter_evidence(parameter, sharding))
    yield from found


def shardings(
    module: nn.Module, above: Sharding = NONE, ancestors: frozenset[int] = frozenset()
) -> Iterator[tuple[nn.Module, Sharding]]:
    """Yields ``module`` and all below it, each with the sets of ranks over which FSDP 2 shards it, if any."""
    own = above | _sharding_of(module)
    yield module, own
    below = ancestors | {id(module)}
    for _, child in children(module):
        if id(child) not in below:
            yield from shardings(child, own, below)


def fsdp2_meshes(module: nn.Module) -> list[Any]:
    """Returns the meshes of an FSDP 2 module's parameter groups; empty for another module."""
    if not is_a(module, "torch.distributed.fsdp", "FSDPModule"):
        return []
    state = module._get_fsdp_state()  # type: ignore[operator]
    groups = getattr(state, "_fsdp_param_groups", None)  # one, until torch 2.10
    if groups is None:
        groups = [getattr(state, "_fsdp_param_group", None)]
    infos = (getattr(group, "mesh_info", None) for group in groups)
    return [info.mesh for info in infos if info is not None]


def _sharding_of(module: nn.Module) -> Sharding:
    found = set()
    for mesh in fsdp2_meshes(module):
        seen = seen_mesh(mesh)
        if seen.mesh.coordinate:
            found |= {*seen.groups, seen.members}
    return frozenset(found)


def _parameter_evidence(parameter: Any, sharding: Sharding) -> Iterator[AxisEvidence]:
    mesh = parameter.device_mesh
    for dimension, (axis, cut) in enumerate(zip(_axes(parameter, sharding), _cuts(parameter), strict=True)):
        names = mesh.mesh_dim_names
        if cut is not None and mesh.size(dimension) > 1 and not (names and axis_of(names[dimension])):
            seen = seen_mesh(mesh)
            if axis == "tp" and seen.mesh.coordinate:
                yield AxisEvidence(PARAMETERS, axis, seen.along([dimension]))


def _cuts(parameter: Any) -> list[int | None]:
    """Returns for each dimension of its mesh the dimension of the parameter that is cut along it, or None."""
    # ``dim`` is an attribute of Shard and of its strided form, for which ``is_shard`` is False.
    return [getattr(placement, "dim", None) for placement in parameter.placements]


def _axes(parameter: Any, sharding: Sharding | None) -> list[str]:
    """Returns for each dimension of its mesh the axis of its name, else the one that follows from the sharding."""
    mesh = parameter.device_mesh
    names = mesh.mesh_dim_names or ("",) * len(parameter.placements)
    known = [axis_of(name) for name in names]
    if all(known) or sharding is None or mesh.get_coordinate() is None:
        return [axis or "dp" for axis in known]
    seen = seen_mesh(mesh)
    return [axis or ("dp" if seen.groups[dimension] in sharding else "tp") for dimension, axis in enumerate(known)]


def _chunk(size: int, parts: int, index: int) -> int:
    """Returns the length of the ``index``-th chunk when ``torch.chunk`` cuts ``size`` into ``parts``."""
    piece = -(-size // parts)
    return max(0, min(piece, size - piece * index))


def _product(shape: list[int]) -> int:
    return functools.reduce(lambda product, size: product * size, shape, 1)
