"""torch's own DDP, FSDP and pipelining: their groups."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from distprof.frameworks.dtensor_shards import fsdp2_meshes
from distprof.frameworks.protocol import Framework
from distprof.module_walk import every_module
from distprof.topology.imported import group_ranks, is_a
from distprof.topology.meshes import seen_mesh

_STAGES = "torch.distributed.pipelining.stage"


class Wrappers(Framework):
    """DDP, FSDP 1 and FSDP 2: the ranks on which they keep parameters equal are data parallel."""

    name = "torch"
    package = "torch"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        for module in every_module(*models):
            found = _ddp_groups(module) or _fsdp1_groups(module, rank) or _fsdp2_groups(module)
            if found:
                return found
        return {}


class Pipelining(Framework):
    """torch.distributed.pipelining: finds the stage that runs a model on the call stack when its forward begins."""

    name = "torch.distributed.pipelining"
    package = _STAGES

    def __init__(self) -> None:
        self._ranks: tuple[int, ...] = ()

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        return {"pp": self._ranks} if self._ranks else {}

    def stage_of(self, model: nn.Module) -> tuple[int, int] | None:
        """Returns (index, number of stages) if ``model`` runs as a stage, else None."""
        for stage in _running_stages():
            if stage.submod is model:
                self._ranks = group_ranks(stage.group) or tuple(range(stage.group_size))
                return int(stage.stage_index), int(stage.num_stages)
        return None


def reducer_groups(models: Iterable[nn.Module]) -> Iterator[object]:
    """Yields the process groups that the reducers of DDP use, once their buckets are built.

    In its second iteration a reducer orders its buckets anew, by a broadcast; it never does if it looks for unused
    parameters in each one.
    """
    for module in every_module(*models):
        if is_a(module, "torch.nn.parallel.distributed", "DistributedDataParallel"):
            group = getattr(module, "process_group", None)
            never = getattr(module, "find_unused_parameters", False) and not getattr(module, "static_graph", True)
            if group is not None and (never or getattr(module, "_has_rebuilt_buckets", False)):
                yield group


def _ddp_groups(module: nn.Module) -> dict[str, Sequence[int]]:
    if not is_a(module, "torch.nn.parallel.distributed", "DistributedDataParallel"):
        return {}
    return _nonempty(dp=group_ranks(getattr(module, "process_group", None)))


def _fsdp1_groups(module: nn.Module, rank: int) -> dict[str, Sequence[int]]:
    if not is_a(module, "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"):
        return {}
    shard = group_ranks(getattr(module, "process_group", None))
    replicate = group_ranks(getattr(module, "_inter_node_pg", None))
    if not replicate:
        return _nonempty(dp=shard, dp_shard=shard)
    if len(replicate) == 1 or not shard:
        return _nonempty(dp=shard or replicate)
    both = tuple(replica + other - rank for replica in replicate for other in shard)
    return _nonempty(dp_replicate=replicate, dp_shard=shard, dp=both)


def _fsdp2_groups(module: nn.Module) -> dict[str, Sequence[int]]:
    meshes = fsdp2_meshes(module)
    return _nonempty(dp=seen_mesh(meshes[0]).ranks) if meshes else {}


def _nonempty(**axes: Sequence[int]) -> dict[str, Sequence[int]]:
    return {axis: ranks for axis, ranks in axes.items() if ranks}


def _running_stages() -> Iterator[Any]:
    """Yields the stages whose methods are on the call stack, the innermost first.

    Reads the locals of torch's own frames only: reading a frame's locals keeps them alive as long as the frame.
    """
    stages = sys.modules.get(_STAGES)
    frame = sys._getframe(1) if stages is not None else None
    while frame is not None:
        if frame.f_globals.get("__name__") == _STAGES:
            caller = frame.f_locals.get("self")
            if is_a(caller, _STAGES, "_PipelineStageBase"):
                yield caller
        frame = frame.f_back
