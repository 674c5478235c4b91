"""Finds the parameters that a wrapper keeps equal on all data-parallel ranks; others may differ from rank to rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from distprof.frameworks.dtensor_shards import is_dtensor, shardings
from distprof.module_walk import children
from distprof.topology.imported import is_a

#: Classes of engines that broadcast all parameters of their module.
_ENGINES = ("DeepSpeedEngine", "PipelineEngine")


class ReplicatingWrappers:
    """The wrappers of one model that keep parameters equal.  FSDP 2's are the DTensors below one of its modules."""

    def __init__(self, model: nn.Module) -> None:
        self._inside: set[int] = set()  # ids of modules in a wrapper
        self._ignored: set[int] = set()  # ids of parameters that a wrapper is to ignore
        self._sharded = {id(owner) for owner, sharding in shardings(model) if sharding}
        self._visit(model, _Position())

    def keeps(self, owner: nn.Module, parameter: object) -> bool:
        """Whether a wrapper keeps ``parameter`` of ``owner`` equal on all data-parallel ranks."""
        if id(owner) in self._sharded:
            return is_dtensor(parameter)
        return id(owner) in self._inside and id(parameter) not in self._ignored

    def _visit(self, module: nn.Module, position: _Position) -> None:
        if position.inside or _is_replicating(module):
            self._inside.add(id(module))
            position = replace(position, inside=True)
        own = module._parameters.items() if position.ignored else ()
        self._ignored |= {id(parameter) for name, parameter in own if f"{position.path}{name}" in position.ignored}
        below = replace(position, ancestors=position.ancestors | {id(module)})
        for name, child in children(module):
            if id(child) in below.ancestors:
                continue
            if _is_ddp(module):
                ignored = frozenset(getattr(module, "parameters_to_ignore", None) or ())
                self._visit(child, replace(below, ignored=ignored, path=""))
            else:
                self._visit(child, replace(below, path=f"{position.path}{name}."))


@dataclass(frozen=True)
class _Position:
    """A module's position: whether it is in a wrapper, the names that this one ignores, and ids of its ancestors."""

    inside: bool = False
    ignored: frozenset[str] = frozenset()
    path: str = ""
    ancestors: frozenset[int] = frozenset()


def _is_replicating(module: nn.Module) -> bool:
    fsdp1 = is_a(module, "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel")
    return fsdp1 or _is_ddp(module) or any(cls.__name__ in _ENGINES for cls in type(module).__mro__)


def _is_ddp(module: nn.Module) -> bool:
    return is_a(module, "torch.nn.parallel.distributed", "DistributedDataParallel")
