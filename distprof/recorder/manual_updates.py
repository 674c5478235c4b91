"""Finds updates that no torch optimizer makes: by the script itself, or by an optimizer of its own.

They are found by what happens to one gradient.  Between two backward passes of an iteration it does not change, because
gradients accumulate; after an update it is removed, zeroed or created again before the next backward.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

#: Updates after which a job counts as one with manual updates.
_MIN_UPDATES = 2
#: Backward passes after which a gradient is searched: a script may compute gradients without keeping them.
_MAX_ATTEMPTS = 8


class ManualUpdates:
    """Follows the gradient of one parameter."""

    def __init__(self) -> None:
        self.updates = 0  # found so far
        self._parameter: weakref.ref[nn.Parameter] | None = None
        self._attempts = 0
        self._last_state: Any = None  # the gradient's state after the last backward
        self._backwards = 0  # since the last update
        self._backwards_per_update = 0  # backward passes between the last two

    def backward_began(self) -> None:
        parameter = self._parameter() if self._parameter is not None else None
        if parameter is not None and _state(parameter) != self._last_state:
            self.updates += 1
            self._backwards_per_update, self._backwards = self._backwards, 0

    def backward_ended(self, modules: Iterable[nn.Module]) -> bool:
        """Ends a backward; returns whether it was the last one of an iteration."""
        parameter = self._parameter() if self._parameter is not None else None
        if parameter is None:
            parameter = self._find_gradient(modules)
        if parameter is None:
            return False
        self._last_state = _state(parameter)
        self._backwards += 1
        return self.updates >= _MIN_UPDATES and self._backwards == self._backwards_per_update

    def _find_gradient(self, modules: Iterable[nn.Module]) -> nn.Parameter | None:
        self._attempts += 1
        if self._attempts > _MAX_ATTEMPTS:
            return None
        owned = (p for module in modules for p in module._parameters.values())
        found = next((p for p in owned if isinstance(p, nn.Parameter) and p.grad is not None), None)
        self._parameter = None if found is None else weakref.ref(found)
        return found


def _state(parameter: nn.Parameter) -> tuple[int, int, int]:
    gradient = parameter.grad
    return parameter._version, id(gradient), _version(gradient)


def _version(tensor: torch.Tensor | None) -> int:
    return -1 if tensor is None or tensor.is_inference() else tensor._version
