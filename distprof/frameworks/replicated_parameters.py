"""Which parameters a wrapper keeps alike over data-parallel ranks: those outside may be others on every rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from distprof.frameworks.dtensor_shards import is_dtensor, shardings
from distprof.module_walk import children
from distprof.topology.imported import is_a

#: Engines that broadcast all that they are given, by class.
_ENGINES = ("DeepSpeedEngine", "PipelineEngine")


class Keepers:
    """The wrappers of one model.  What FSDP 2 keeps is a DTensor below one of its modules."""

    def __init__(self, model: nn.Module) -> None:
        self._inside: set[int] = set()  # ids of modules in a wrapper
        self._ignored: set[int] = set()  # ids of parameters that a wrapper was told to leave alone
        self._sharded = {id(owner) for owner, sharding in shardings(model) if sharding}
        self._look(model, _Place())

    def keeps(self, owner: nn.Module, parameter: object) -> bool:
        """Whether one keeps ``parameter``, of ``owner``."""
        if id(owner) in self._sharded:
            return is_dtensor(parameter)
        return id(owner) in self._inside and id(parameter) not in self._ignored

    def _look(self, module: nn.Module, place: _Place) -> None:
        if place.inside or _is_keeper(module):
            self._inside.add(id(module))
            place = replace(place, inside=True)
        own = module._parameters.items() if place.ignored else ()
        self._ignored |= {id(parameter) for name, parameter in own if f"{place.path}{name}" in place.ignored}
        below = replace(place, above=place.above | {id(module)})
        for name, child in children(module):
            if id(child) in below.above:
                continue
            if _is_ddp(module):
                ignored = frozenset(getattr(module, "parameters_to_ignore", None) or ())
                self._look(child, replace(below, ignored=ignored, path=""))
            else:
                self._look(child, replace(below, path=f"{place.path}{name}."))


@dataclass(frozen=True)
class _Place:
    """Where a module stands: in a wrapper or not, what that one ignores by names below it, and ids of what holds it."""

    inside: bool = False
    ignored: frozenset[str] = frozenset()
    path: str = ""
    above: frozenset[int] = frozenset()


def _is_keeper(module: nn.Module) -> bool:
    fsdp1 = is_a(module, "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel")
    return fsdp1 or _is_ddp(module) or any(cls.__name__ in _ENGINES for cls in type(module).__mro__)


def _is_ddp(module: nn.Module) -> bool:
    return is_a(module, "torch.nn.parallel.distributed", "DistributedDataParallel")
