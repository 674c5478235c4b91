"""The parameters that a module owns, whether they are still attributes of it or lie in FSDP 1's flat parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.dtensor_shards import NONE, Sharding, shardings
from distprof.frameworks.fsdp1_flat import flat_parameters, is_flat
from distprof.frameworks.protocol import ParameterLayout
from distprof.frameworks.registry import FrameworkRegistry
from distprof.frameworks.replicated_parameters import ReplicatingWrappers

#: Whether a tensor is a function transform's wrapper (``vmap``, ``grad``): a part or a copy of the real one.
_is_wrapped = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)


@dataclass(frozen=True)
class OwnedParameter:
    """One parameter.  ``anchor``, which lives as long as it, and ``key`` identify it; tied parameters share both."""

    name: str
    owner: nn.Module
    anchor: torch.Tensor | nn.Module
    key: str
    dtype: torch.dtype
    trainable: bool
    kept_alike: bool = False  # a wrapper keeps it equal on all data-parallel ranks
    _layout: ParameterLayout | None = None
    _sharding: Sharding = NONE

    @property
    def identity(self) -> tuple[int, str]:
        return id(self.anchor), self.key

    def layout(self, stacks: FrameworkRegistry, name: str, *, expert: bool = False) -> ParameterLayout:
        """Returns its layout over the ranks; ``name`` is its full name in the model."""
        if self._layout is not None:
            return self._layout
        assert isinstance(self.anchor, torch.Tensor)
        return stacks.layout(self.owner, name, self.anchor, expert=expert, sharding=self._sharding)


class OwnedParameters:
    """Finds the parameters of each module of one root model.  Short-lived: it keeps tensors alive."""

    def __init__(self, model: nn.Module) -> None:
        self._unwrapped: list[torch.Tensor] = []  # inside function transforms' wrappers: an id holds while they live
        self._flattened = flat_parameters(model)
        self._wrappers = ReplicatingWrappers(model)
        self._shardings = {id(owner): sharding for owner, sharding in shardings(model) if sharding}  # by FSDP 2

    def owned_by(self, module: nn.Module) -> Iterator[OwnedParameter]:
        """Yields the module's own parameters, without lazy ones that have no shape yet."""
        flat = {parameter.name: parameter for parameter in self._flattened.get(id(module), ())}
        for name, parameter in module._parameters.items():
            if parameter is not None and name not in flat and not is_lazy(parameter) and not is_flat(parameter):
                whole = self._unwrap(parameter)
                yield OwnedParameter(
                    name,
                    module,
                    whole,
                    "",
                    whole.dtype,
                    whole.requires_grad,
                    self._wrappers.keeps(module, parameter),
                    _sharding=self._shardings.get(id(module), NONE),
                )
        for name, p in flat.items():
            yield OwnedParameter(name, module, p.prime, p.prime_name, p.dtype, p.trainable, True, p.layout)

    def _unwrap(self, tensor: torch.Tensor) -> torch.Tensor:
        """Unwraps a tensor: under ``vmap`` a module sees one member's parameter, the result is that of all members."""
        while _is_wrapped is not None and _is_wrapped(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
            self._unwrapped.append(tensor)
        return tensor
