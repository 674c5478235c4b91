"""transformers and accelerate: their device meshes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import nn

from distprof.frameworks.protocol import Framework
from distprof.module_walk import every_module
from distprof.topology.imported import imported
from distprof.topology.meshes import SeenMesh, mesh_axes, root_of, seen_mesh

#: The dimensions of accelerate's mesh; the last varies fastest.
_ACCELERATE_AXES = ("dp_replicate", "dp_shard", "cp", "sp", "tp")


class Transformers(Framework):
    """The device mesh that ``from_pretrained(..., tp_plan=...)`` keeps in the model."""

    name = "transformers"
    package = "transformers"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        for module in every_module(*models):
            mesh: Any = getattr(module, "_device_mesh", None)
            if mesh is not None and hasattr(module, "config"):
                return mesh_axes(seen_mesh(root_of(mesh)))
        return {}


class Accelerate(Framework):
    """The device mesh of the Accelerator, or the settings of ``accelerate launch`` from which it would be made."""

    name = "accelerate"
    package = "accelerate.state"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        state = getattr(imported("accelerate.state", "AcceleratorState"), "_shared_state", {})
        mesh = state.get("device_mesh")
        if mesh is not None:
            return mesh_axes(seen_mesh(root_of(mesh)))
        return _groups_from_environment(rank, int(state.get("num_processes") or 1))


def _groups_from_environment(rank: int, world_size: int) -> Mapping[str, Sequence[int]]:
    """Reads the settings of ``accelerate launch``, from which no mesh is made under DeepSpeed."""
    if os.environ.get("ACCELERATE_USE_PARALLELISM_CONFIG", "").lower() != "true":
        return {}
    settings = (os.environ.get(f"PARALLELISM_CONFIG_{axis.upper()}_SIZE", "1") for axis in _ACCELERATE_AXES)
    shape = tuple(int(size) if size.isdecimal() else 1 for size in settings)
    if prod(shape) != world_size:
        return {}
    return mesh_axes(SeenMesh.in_order(_ACCELERATE_AXES, shape, rank))
