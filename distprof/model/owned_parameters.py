"""What a module owns by way of parameters, whether they are still there or lie in FSDP 1's flat ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from distprof.frameworks.dtensor_shards import NONE, Sharding, shardings
from distprof.frameworks.protocol import ParameterLayout
from distprof.frameworks.registry import FrameworkRegistry
from distprof.frameworks.replicated_parameters import Keepers
from distprof.model.fsdp1_flat import flat_parameters, is_flat

#: Whether a function transform (``vmap``, ``grad``) shows a part of a tensor, or a copy, in its place.
_is_wrapped = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)


@dataclass(frozen=True)
class OwnedParameter:
    """One parameter.  ``anchor`` lives as long as it, and with ``key`` tells it from all others alive: tied ones have
    the same two.
    """

    name: str
    owner: nn.Module
    anchor: torch.Tensor | nn.Module
    key: str
    dtype: torch.dtype
    trainable: bool
    kept_alike: bool = False  # over data-parallel ranks, by a wrapper
    _layout: ParameterLayout | None = None
    _sharding: Sharding = NONE

    @property
    def identity(self) -> tuple[int, str]:
        return id(self.anchor), self.key

    def layout(self, stacks: FrameworkRegistry, name: str, *, expert: bool = False) -> ParameterLayout:
        """``name`` is its whole name in the model."""
        if self._layout is not None:
            return self._layout
        assert isinstance(self.anchor, torch.Tensor)
        return stacks.layout(self.owner, name, self.anchor, expert=expert, sharding=self._sharding)


class OwnedParameters:
    """Of one root model, for as long as it is looked at."""

    def __init__(self, model: nn.Module) -> None:
        self._inside: list[torch.Tensor] = []  # what function transforms have wrapped: it has an id while it is held
        self._flattened = flat_parameters(model)
        self._keepers = Keepers(model)
        self._shardings = {id(owner): sharding for owner, sharding in shardings(model) if sharding}  # by FSDP 2

    def owned_by(self, module: nn.Module) -> Iterator[OwnedParameter]:
        """Lazy ones without a shape are left out."""
        flat = {parameter.name: parameter for parameter in self._flattened.get(id(module), ())}
        for name, parameter in module._parameters.items():
            if parameter is not None and name not in flat and not is_lazy(parameter) and not is_flat(parameter):
                whole = self._whole(parameter)
                yield OwnedParameter(
                    name,
                    module,
                    whole,
                    "",
                    whole.dtype,
                    whole.requires_grad,
                    self._keepers.keeps(module, parameter),
                    _sharding=self._shardings.get(id(module), NONE),
                )
        for name, p in flat.items():
            yield OwnedParameter(name, module, p.prime, p.prime_name, p.dtype, p.trainable, True, p.layout)

    def _whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of an ensemble under ``vmap`` all members' parameters, where a module sees one member's."""
        while _is_wrapped is not None and _is_wrapped(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
            self._inside.append(tensor)
        return tensor
