"""Records every device mesh that the script makes, and reads the axes from the names of its dimensions."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from distprof.external_exceptions import pass_on
from distprof.module_walk import parameters_in
from distprof.records import ASSUMED, AXES, DEVICE_MESH, Mesh
from distprof.topology.axes import FINE_NAMES, AxisEvidence, axis_of
from distprof.topology.imported import is_a

#: In a mesh that has one of these axes, data-parallel dimensions are those of experts (edp).
_EXPERT_AXES = ("ep", "edp", "etp")
#: Names of dimensions over all ranks, which split nothing.
_WHOLE = ("world", "all", "default", "loss", "loss_mesh")


@dataclass(frozen=True)
class SeenMesh:
    """A mesh's record, and its global ranks in row-major order."""

    mesh: Mesh
    ranks: tuple[int, ...]

    @classmethod
    def in_order(cls, names: tuple[str, ...], shape: tuple[int, ...], rank: int) -> SeenMesh:
        """Makes a mesh over the whole world, whose last dimension varies fastest."""
        ranks = tuple(range(prod(shape)))
        return cls(Mesh(names, shape, tuple(cls(Mesh(names, shape), ranks)._coordinate_of(rank))), ranks)

    def along(self, dimensions: Collection[int]) -> tuple[int, ...]:
        """Returns the ranks that share this rank's coordinates on all other dimensions."""
        own = tuple(slice(None) if i in dimensions else at for i, at in enumerate(self.mesh.coordinate))
        found: list[int] = self._grid[own].ravel().tolist()
        return tuple(found)

    @functools.cached_property
    def groups(self) -> tuple[frozenset[int], ...]:
        """Returns by dimension the ranks of this rank's group along it; none if this rank is not in the mesh."""
        return tuple(frozenset(self.along([i])) for i in range(len(self.mesh.shape))) if self.mesh.coordinate else ()

    @functools.cached_property
    def members(self) -> frozenset[int]:
        """Returns all ranks of the mesh."""
        return frozenset(self.ranks)

    @functools.cached_property
    def _grid(self) -> npt.NDArray[np.int64]:
        """Returns the ranks in the shape of the mesh."""
        return np.array(self.ranks, np.int64).reshape(self.mesh.shape)

    def _coordinate_of(self, index: int) -> list[int]:
        coordinate = []
        for size in reversed(self.mesh.shape):
            coordinate.append(index % size)
            index //= size
        return coordinate[::-1]


class MeshRecorder:
    """Records every DeviceMesh that the script makes, from before its first line.

    torch keeps no list of meshes, and a framework may drop the mesh that it built; so it is copied when it is made.
    """

    def __init__(self) -> None:
        self._seen: dict[SeenMesh, None] = {}
        self._original: Callable[..., None] | None = None

    @property
    def seen(self) -> list[SeenMesh]:
        """The meshes with names, each once, in the order in which they were made."""
        return list(self._seen)

    def open(self) -> None:
        import torch.distributed

        if self._original is not None or not torch.distributed.is_available():
            return
        from torch.distributed.device_mesh import DeviceMesh

        original, note = DeviceMesh.__init__, self._note
        self._original = original

        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            note(self)

        DeviceMesh.__init__ = __init__  # type: ignore[method-assign]

    def close(self) -> None:
        if self._original is not None:
            from torch.distributed.device_mesh import DeviceMesh

            DeviceMesh.__init__ = self._original  # type: ignore[method-assign]
            self._original = None

    def _note(self, mesh: Any) -> None:
        try:
            seen = seen_mesh(mesh)
        except Exception as error:  # a mesh in a state that only this torch version has: it is skipped
            pass_on(error)
            return
        if seen.mesh.names:
            self._seen.setdefault(seen)


#: Copies of meshes that are alive and hold this rank, by the id of the mesh: each sharded parameter refers to one.
_copies: dict[int, tuple[weakref.ref[Any], SeenMesh]] = {}


def seen_mesh(mesh: Any) -> SeenMesh:
    """Returns the names, shape, ranks and coordinate of a DeviceMesh, copied once.  Raises whatever torch raises."""
    key = id(mesh)
    kept = _copies.get(key)
    if kept is not None and kept[0]() is mesh:
        return kept[1]
    copy = _copied(mesh)
    if copy.mesh.coordinate:
        _copies[key] = weakref.ref(mesh, lambda _: _copies.pop(key, None)), copy
    return copy


def _copied(mesh: Any) -> SeenMesh:
    names = tuple(map(str, mesh.mesh_dim_names or ()))
    shape = tuple(int(size) for size in mesh.shape)
    ranks = tuple(mesh.mesh.flatten().tolist())
    return SeenMesh(Mesh(names, shape, tuple(mesh.get_coordinate() or ())), ranks)


def root_of(mesh: Any) -> Any:
    """Returns the mesh that this one is a slice of, or itself."""
    root = getattr(mesh, "_get_root_mesh", None)
    return root() if root is not None else mesh


def meshes_of_parameters(models: Sequence[nn.Module]) -> list[SeenMesh]:
    """Returns the named meshes over which the models' DTensors are laid out."""
    tensors = parameters_in(*models)
    under = (tensor.device_mesh for tensor in tensors if is_a(tensor, "torch.distributed.tensor", "DTensor"))  # type: ignore[attr-defined]
    roots = {id(root): root for root in map(root_of, {id(mesh): mesh for mesh in under}.values())}
    return [seen for seen in dict.fromkeys(map(seen_mesh, roots.values())) if seen.mesh.names]


def mesh_axes(seen: SeenMesh) -> dict[str, tuple[int, ...]]:
    """Maps each axis to the ranks of this rank's group along it."""
    return {axis: seen.along(dims) for axis, dims in _axes(seen, ()).items()} if seen.mesh.coordinate else {}


def mesh_evidence(meshes: Sequence[SeenMesh], fakes: Collection[frozenset[int]] = ()) -> Iterator[AxisEvidence]:
    """Yields the axes of the meshes, those of meshes with most axes first.

    Slices are skipped: their mesh says more.  A dimension whose ranks are in ``fakes`` has a process group that never
    communicates, and is no axis.  Dimensions of unknown names beside known ones are assumed to be data parallel.
    """
    placed = [seen for seen in meshes if seen.mesh.coordinate]
    named = [(seen, _axes(seen, fakes)) for seen in placed if not any(_is_slice(seen, other) for other in placed)]
    assumed = []
    for seen, axes in sorted(named, key=lambda pair: (-len(pair[1].keys() & {*AXES}), -len(pair[0].mesh.names))):
        for axis, dimensions in axes.items():
            yield AxisEvidence(DEVICE_MESH, axis, seen.along(dimensions))
        odd = [i for i in _unknown(seen) if seen.groups[i] not in fakes]
        if axes and odd and "dp" not in axes:
            assumed.append(AxisEvidence(ASSUMED, "dp", seen.along(odd)))
    yield from assumed


def unknown_dimension_names(meshes: Sequence[SeenMesh], settled: Collection[frozenset[int]] = ()) -> Iterator[str]:
    """Yields a sentence for each mesh with dimensions whose names are unknown.

    Leaves out dimensions whose ranks are in ``settled``: there other evidence names the axis.
    """
    for seen in meshes:
        odd = [seen.mesh.names[i] for i in _unknown(seen) if not _is_settled(seen, i, settled)]
        is_slice = any({*seen.mesh.names} < {*other.mesh.names} for other in meshes)
        if odd and not is_slice:
            what = "dimensions" if len(odd) > 1 else "dimension"
            shown = " x ".join(f"{n} {s}" for n, s in zip(seen.mesh.names, seen.mesh.shape, strict=True))
            yield (
                f"{what} {', '.join(odd)} of the device mesh {shown}: no axis is known by such a name, data "
                "parallel is assumed; say otherwise with distprof.set_topology()"
            )


def _is_settled(seen: SeenMesh, dimension: int, settled: Collection[frozenset[int]]) -> bool:
    return bool(seen.mesh.coordinate) and seen.groups[dimension] in settled


def _is_slice(seen: SeenMesh, other: SeenMesh) -> bool:
    """Whether each of its dimensions is one of the other's, along the same ranks."""
    names, others = seen.mesh.names, other.mesh.names
    return {*names} < {*others} and all(
        seen.along([i]) == other.along([others.index(name)]) for i, name in enumerate(names)
    )


def _axes(seen: SeenMesh, fakes: Collection[frozenset[int]]) -> dict[str, list[int]]:
    """Maps each axis to the dimensions that belong to it."""
    axes: dict[str, list[int]] = {}
    known = [axis_of(name) for name in seen.mesh.names]
    has_experts = any(axis in _EXPERT_AXES for axis in known)
    for i, (name, axis) in enumerate(zip(seen.mesh.names, known, strict=True)):
        if axis is None or (seen.mesh.shape[i] > 1 and seen.groups[i] in fakes):
            continue
        if has_experts and axis == "dp":
            axes.setdefault("edp", []).append(i)
            continue
        axes.setdefault(axis, []).append(i)
        if name.lower() in FINE_NAMES:
            axes.setdefault(FINE_NAMES[name.lower()], []).append(i)
    return axes


def _unknown(seen: SeenMesh) -> list[int]:
    """Returns the dimensions of size above 1 whose names are no axis.  A flattened one is named after its parts."""
    return [
        i
        for i, name in enumerate(seen.mesh.names)
        if seen.mesh.shape[i] > 1 and axis_of(name) is None and not _is_flattened(name.lower())
    ]


def _is_flattened(name: str) -> bool:
    return name in _WHOLE or all(axis_of(part) is not None for part in name.split("_"))
