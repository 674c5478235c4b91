"""torch itself: the groups of DDP, FSDP and pipelining, and DTensors for the layout of parameters."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from distprof.frameworks.axes import axis_of, is_data_axis
from distprof.frameworks.protocol import Framework, Layout, group_ranks, is_a

_STAGES = "torch.distributed.pipelining.stage"


class Wrappers(Framework):
    """DDP, FSDP 1 and FSDP 2: the ranks that they keep alike are data parallel."""

    name = "torch"
    package = "torch"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        for module in (module for model in models for module in model.modules()):
            found = _of_ddp(module) or _of_fsdp1(module, rank) or _of_fsdp2(module)
            if found:
                return found
        return {}

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> Layout | None:
        return of_dtensor(parameter) if is_a(parameter, "torch.distributed.tensor", "DTensor") else None


class Pipelining(Framework):
    """torch.distributed.pipelining: the stage that runs a model is found on the stack, as its forward begins."""

    name = "torch.distributed.pipelining"
    package = _STAGES

    def __init__(self) -> None:
        self._ranks: tuple[int, ...] = ()

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        return {"pp": self._ranks} if self._ranks else {}

    def stage_of(self, model: nn.Module) -> tuple[int, int] | None:
        """(index, number of stages) when ``model`` is running as a stage."""
        for stage in _running_stages():
            if stage.submod is model:
                self._ranks = group_ranks(stage.group) or tuple(range(stage.group_size))
                return int(stage.stage_index), int(stage.num_stages)
        return None


def of_dtensor(parameter: Any) -> Layout:
    """Allocates nothing."""
    shape = list(parameter.shape)
    mesh = parameter.device_mesh
    coordinate = mesh.get_coordinate()
    names = mesh.mesh_dim_names or ("dp",) * len(parameter.placements)
    sharded: list[str] = []
    for dimension, (name, placement) in enumerate(zip(names, parameter.placements, strict=True)):
        cut = getattr(placement, "dim", None)  # of a Shard, and of a strided one, which is none to ``is_shard``
        if cut is None or mesh.size(dimension) == 1:
            continue
        sharded.append(axis_of(name) or name)
        if not is_data_axis(name) and coordinate is not None:
            shape[cut] = _chunk(shape[cut], mesh.size(dimension), coordinate[dimension])
    return Layout(
        parameter._local_tensor.numel(), _product(shape), parameter.numel(), sharded=tuple(dict.fromkeys(sharded))
    )


def _of_ddp(module: nn.Module) -> dict[str, Sequence[int]]:
    if not is_a(module, "torch.nn.parallel.distributed", "DistributedDataParallel"):
        return {}
    return _told(dp=group_ranks(getattr(module, "process_group", None)))


def _of_fsdp1(module: nn.Module, rank: int) -> dict[str, Sequence[int]]:
    if not is_a(module, "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"):
        return {}
    shard = group_ranks(getattr(module, "process_group", None))
    replicate = group_ranks(getattr(module, "_inter_node_pg", None))
    if not replicate:
        return _told(dp=shard, dp_shard=shard)
    if len(replicate) == 1 or not shard:
        return _told(dp=shard or replicate)
    both = tuple(replica + other - rank for replica in replicate for other in shard)
    return _told(dp_replicate=replicate, dp_shard=shard, dp=both)


def _of_fsdp2(module: nn.Module) -> dict[str, Sequence[int]]:
    if not is_a(module, "torch.distributed.fsdp", "FSDPModule"):
        return {}
    group = getattr(module._get_fsdp_state(), "_fsdp_param_group", None)  # type: ignore[operator]
    info = getattr(group, "mesh_info", None)
    if info is None:
        return {}
    return _told(dp=tuple(map(int, info.mesh.mesh.flatten().tolist())))


def _told(**axes: Sequence[int]) -> dict[str, Sequence[int]]:
    return {axis: ranks for axis, ranks in axes.items() if ranks}


def _running_stages() -> Iterator[Any]:
    """Stages in whose methods we are, the innermost first.

    Only torch's own frames are looked into: a look at a frame's locals keeps them alive as long as the frame.
    """
    stages = sys.modules.get(_STAGES)
    frame = sys._getframe(1) if stages is not None else None
    while frame is not None:
        if frame.f_globals.get("__name__") == _STAGES:
            caller = frame.f_locals.get("self")
            if is_a(caller, _STAGES, "_PipelineStageBase"):
                yield caller
        frame = frame.f_back


def _chunk(size: int, parts: int, index: int) -> int:
    """Length of the ``index``-th piece when ``torch.chunk`` cuts ``size`` into ``parts``."""
    piece = -(-size // parts)
    return max(0, min(piece, size - piece * index))


def _product(shape: list[int]) -> int:
    return functools.reduce(lambda product, size: product * size, shape, 1)
