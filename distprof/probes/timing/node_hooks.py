"""The hooks at which the backward of modules begins: on the autograd nodes of their outputs and inputs.

A hook is registered on a node through a tensor that has it, as ``Tensor.register_hook`` does: that takes a tenth of the
time of ``register_prehook``, which creates a handle each time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, Protocol

import torch

from distprof.flops.long_graphs import FREED_BY_RECURSION, keep_edges
from distprof.hooks.dynamo import hidden_from_dynamo, out_of_trace

#: The owner of time outside of modules.  A module owns forward time as its row, backward time as ``~row``.
NOBODY = 1 << 40

Hook = Callable[[torch.Tensor], torch.Tensor | None]  # as torch calls it


class NodeHooks(Protocol):
    """Registers hooks on the nodes of steps."""

    def begin(self) -> None:
        """Begins a step."""

    def add(self, node: Any, row: int) -> None:
        """Registers a hook on ``node``, if it has none: when the gradient arrives, the backward of ``row`` begins."""

    def hook(self, owner: int) -> Hook:
        """Returns a hook of parameters, which begins an interval of ``owner``."""


class PythonNodeHooks:
    """Has one hook for each row, as the compiled hooks do: see :mod:`distprof.native.extension`."""

    def __init__(self, hook: Callable[[int, Any], None]) -> None:
        """``hook`` gets an owner and a gradient."""
        # A method is the smallest object that calls ``hook`` with an owner: it has left the caches when a step uses it.
        self.hook: Callable[[int], Hook] = partial(MethodType, hook)
        self._carriers: dict[int, torch.Tensor] = {}  # by row
        self._hooked: list[int] = []  # the numbers of nodes with a hook, ascending: new ones are nearly always highest

    def begin(self) -> None:
        self._hooked.clear()

    def add(self, node: Any, row: int) -> None:
        place = bisect_left(self._hooked, number := node._sequence_nr())
        if place < len(self._hooked) and self._hooked[place] == number:
            return
        self._hooked.insert(place, number)
        if len(self._hooked) > FREED_BY_RECURSION:
            keep_edges(node)
        if row not in self._carriers:
            self._carriers[row] = new_carrier(self.hook(NOBODY if row == NOBODY else ~row))
        node._register_hook_dict(self._carriers[row])


@hidden_from_dynamo
def new_carrier(hook: Hook) -> torch.Tensor:
    """Returns a tensor that has the hook, to be registered on nodes."""
    with out_of_trace(), torch._C.DisableTorchFunction():
        carrier = torch.frombuffer(bytearray(1), dtype=torch.uint8)  # runs no op, which a mode may see
        carrier._backward_hooks = {0: hook}
    return carrier
