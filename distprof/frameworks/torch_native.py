"""torch itself: the groups of DDP, FSDP and pipelining."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from distprof.frameworks.dtensor_shards import fsdp2_meshes
from distprof.frameworks.protocol import Framework
from distprof.module_walk import every_module
from distprof.topology.imported import group_ranks, is_a

_STAGES = "torch.distributed.pipelining.stage"


class Wrappers(Framework):
    """DDP, FSDP 1 and FSDP 2: the ranks that they keep alike are data parallel."""

    name = "torch"
    package = "torch"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        for module in every_module(*models):
            found = _of_ddp(module) or _of_fsdp1(module, rank) or _of_fsdp2(module)
            if found:
                return found
        return {}


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
    meshes = fsdp2_meshes(module)
    return _told(dp=tuple(map(int, meshes[0].mesh.flatten().tolist()))) if meshes else {}


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
