"""A model as a finder of experts sees it: modules without their wrappers, and weights in their whole shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.dtensor_shards import is_dtensor, rank_length
from distprof.frameworks.fsdp1_flat import flat_parameters, is_flat
from distprof.module_walk import wraps_under

#: The attribute in which peft's layers keep the module that they adapt.
_ADAPTED = "base_layer"


@dataclass(frozen=True)
class Weight:
    """The whole shape of a parameter, and the length of its dimension 0 on this rank without data-parallel sharding.

    ``of_linear``: it belongs to a Linear, whose outputs are the rows.
    """

    shape: tuple[int, ...]
    local: int
    of_linear: bool = False


class ModelView:
    """The weights of one model, wherever its wrappers keep them.  Short-lived: it keeps modules alive."""

    def __init__(self, model: nn.Module) -> None:
        self._flattened = flat_parameters(model)

    def weights(self, module: nn.Module) -> dict[str, Weight]:
        """Returns the module's own parameters that have a shape, by name: none for a wrapper's flat parameter."""
        linear = isinstance(module, nn.Linear)
        own = {name: p for name, p in module._parameters.items() if p is not None and not _is_shapeless(p)}
        shapes = {name: _shape_and_length(p) for name, p in own.items()}
        shapes |= {one.name: (one.shape, one.shape[0]) for one in self._flattened.get(id(module), ()) if one.shape}
        return {name: Weight(shape, local, linear) for name, (shape, local) in shapes.items()}

    def weights_below(self, module: nn.Module, prefix: str = "", depth: int = 4) -> Iterator[tuple[str, Weight]]:
        """Yields the parameters of a module, and of those down to ``depth`` levels below it, with their names."""
        inner = unwrapped(module)
        yield from ((f"{prefix}{name}", weight) for name, weight in self.weights(inner).items())
        for name, child in inner._modules.items() if depth else ():
            if child is not None:
                yield from self.weights_below(child, f"{prefix}{name}.", depth - 1)


def unwrapped(module: nn.Module) -> nn.Module:
    """Returns the module inside all wrappers: FSDP 1, activation checkpointing, ``torch.compile``, peft."""
    seen = {id(module)}
    while True:
        inner = next((child for name, child in module._modules.items() if _wraps(module, name)), None)
        if inner is None or id(inner) in seen:
            return module
        seen.add(id(inner))
        module = inner


def package_of(module: nn.Module) -> str:
    """Returns the dotted name of the module in which the class of ``module`` is written.

    FSDP 2 gives a module a class of its own, which is derived from FSDPModule and from the one that is meant.
    """
    made = type(module)
    if len(made.__bases__) == 2 and made.__bases__[0].__name__ == "FSDPModule":
        made = made.__bases__[1]
    return made.__module__


def is_wrapping(module: nn.Module) -> bool:
    """Whether a module only wraps another one, as DDP and compiled modules do."""
    return unwrapped(module) is not module


def _wraps(module: nn.Module, child: str) -> bool:
    return wraps_under(module, child) or child == _ADAPTED


def _is_shapeless(parameter: nn.Parameter) -> bool:
    return is_lazy(parameter) or is_flat(parameter)


def _shape_and_length(parameter: Any) -> tuple[tuple[int, ...], int]:
    whole = tuple(getattr(parameter, "ds_shape", ())) or tuple(parameter.shape)  # ZeRO-3 empties parameters
    if is_dtensor(parameter) and prod(whole):
        return whole, rank_length(parameter)
    return whole, whole[0] if whole else 0
