"""What torch itself shows of a job's parallelism: device meshes, and DTensors for the layout of parameters."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.nn.parameter import is_lazy

from distprof.frameworks.axes import is_data_axis
from distprof.records import Mesh


@dataclass(frozen=True)
class Layout:
    """Elements of one parameter: in this rank's memory, on this rank with data-parallel sharding undone, and in the
    whole.
    """

    local_numel: int
    rank_numel: int
    global_numel: int


def layout(parameter: Any) -> Layout:
    """How a parameter is laid out; a lazy one has no elements yet.  Never communicates and allocates nothing."""
    if is_lazy(parameter):
        return Layout(0, 0, 0)
    if not _is_dtensor(parameter):
        # ZeRO-3 empties a parameter between its uses, and keeps its size and this rank's padded part beside it.
        whole = getattr(parameter, "ds_numel", parameter.numel())
        local = getattr(parameter, "ds_tensor", parameter).numel()
        return Layout(local, whole, whole)
    shape = list(parameter.shape)
    coordinate = parameter.device_mesh.get_coordinate()
    names = parameter.device_mesh.mesh_dim_names or ("dp",) * len(parameter.placements)
    for axis, (name, placement) in enumerate(zip(names, parameter.placements, strict=True)):
        if placement.is_shard() and not is_data_axis(name) and coordinate is not None:
            dimension = placement.dim
            shape[dimension] = _chunk(shape[dimension], parameter.device_mesh.size(axis), coordinate[axis])
    return Layout(parameter._local_tensor.numel(), _product(shape), parameter.numel())


def _is_dtensor(parameter: Any) -> bool:
    tensor = sys.modules.get("torch.distributed.tensor")  # only a script that uses DTensors has imported it
    return tensor is not None and isinstance(parameter, tensor.DTensor)


def _chunk(size: int, parts: int, index: int) -> int:
    """Length of the ``index``-th piece when ``torch.chunk`` cuts ``size`` into ``parts``."""
    piece = -(-size // parts)
    return max(0, min(piece, size - piece * index))


def _product(shape: list[int]) -> int:
    return functools.reduce(lambda product, size: product * size, shape, 1)


class MeshWatch:
    """Sees every DeviceMesh that the script makes, from before its first line.

    torch keeps no list of meshes, and a framework may drop the mesh that it built; so what it says is copied as it is
    made.
    """

    def __init__(self) -> None:
        self.seen: list[Mesh] = []
        self._original: Callable[..., None] | None = None

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
            names = tuple(mesh.mesh_dim_names or ())
            if names:
                seen = Mesh(names, tuple(int(size) for size in mesh.shape), tuple(mesh.get_coordinate() or ()))
                if seen not in self.seen:
                    self.seen.append(seen)
        except Exception:  # a mesh in a state that this torch version alone knows: it just stays unseen
            return
