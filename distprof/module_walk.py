"""Walks modules in the order of a model's rows, and recognizes wrappers, which are no part of the model's own names."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

#: Attributes under which wrappers keep the module that they wrap.
_WRAPPED_UNDER = {
    "module": ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine", "PipelineEngine", "AveragedModel"),
    "_orig_mod": ("OptimizedModule",),
    "_fsdp_wrapped_module": ("FullyShardedDataParallel",),
    "_checkpoint_wrapped_module": ("CheckpointWrapper", "OffloadWrapper"),
    "_forward_module": ("_FabricModule",),
}


def class_name(module: nn.Module) -> str:
    """Returns the class name that its author gave: FSDP 2 makes a subclass ``FSDPBlock`` of ``Block``."""
    cls = type(module)
    if (
        cls.__name__.startswith("FSDP")
        and len(cls.__bases__) == 2
        and cls.__name__ == f"FSDP{cls.__bases__[1].__name__}"
    ):
        return cls.__bases__[1].__name__
    return cls.__name__


def wraps_under(module: nn.Module, child: str) -> bool:
    """Whether ``child`` is the attribute in which a wrapper keeps its module.

    FSDP 2 makes subclasses of the classes that it shards, so base classes are compared as well.
    """
    owners = _WRAPPED_UNDER.get(child)
    return owners is not None and any(cls.__name__ in owners for cls in type(module).__mro__)


def is_wrapper(module: nn.Module) -> bool:
    """Whether the module only wraps another."""
    return any(wraps_under(module, name) for name in module._modules.keys())  # noqa: SIM118 (TorchScript's has no iter())


def children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the children that get rows: not a wrapper's second reference to a module inside the wrapped one."""
    own = [(name, child) for name, child in module._modules.items() if child is not None]
    wrapped = [child for name, child in own if wraps_under(module, name)]
    if len(own) > 1 and wrapped:
        inside = {id(found) for found in modules_of(wrapped[0])}
        own = [(name, child) for name, child in own if child is wrapped[0] or id(child) not in inside]
    return iter(own)


def modules_of(module: nn.Module, above: frozenset[int] = frozenset()) -> Iterator[nn.Module]:
    """Yields ``module`` and all modules below it, in the order of torch's own walk, but over :func:`children`.

    A module with several names comes once for each name.
    """
    yield module
    below = above | {id(module)}
    for _, child in children(module):
        if id(child) not in below:
            yield from modules_of(child, below)


def every_module(*models: nn.Module) -> Iterator[nn.Module]:
    """Yields each module once, a module before its children.

    Calls no method of a module: a script's class may override ``modules()`` and the like.
    """
    seen: set[int] = set()
    pending = [*reversed(models)]
    while pending:
        module = pending.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield module
            pending += [child for child in reversed([*module._modules.values()]) if child is not None]


def parameters_in(*models: nn.Module) -> Iterator[Tensor]:
    """Yields each parameter once, in the order of torch's ``parameters()``; plain tensors during a functional call."""
    seen: set[int] = set()
    for module in every_module(*models):
        for parameter in module._parameters.values():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
