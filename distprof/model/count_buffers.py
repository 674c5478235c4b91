"""Buffers in which a MoE layer counts the tokens of its experts: of compiled layers nothing else may show them.

torchtitan's layer adds to ``tokens_per_expert`` in each forward, and its optimizer empties it.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from distprof.module_walk import every_module

_NAME = re.compile(r"tokens_per_expert", re.IGNORECASE)

#: Returns the buffer; None where it is gone, and for a DTensor: it may hold the counts of other ranks, too.
ReadBuffer = Callable[[], Tensor | None]


def is_compiled(module: nn.Module) -> bool:
    """Whether a call of the module runs code of torch's compiler."""
    return type(module).__name__ == "OptimizedModule" or module.__dict__.get("_compiled_call_impl") is not None


def count_buffer(layer: nn.Module, num_experts: int) -> ReadBuffer | None:
    """Returns a reader of the buffer in which ``layer`` counts, which keeps no module alive; None without one."""
    for module in every_module(layer):
        for name, buffer in module._buffers.items():
            if buffer is not None and _NAME.search(name) and tuple(buffer.shape) == (num_experts,):
                return partial(_read, weakref.ref(module), name)
    return None


def _read(owner: weakref.ref[nn.Module], name: str) -> Tensor | None:
    module = owner()
    buffer = None if module is None else module._buffers.get(name)
    return buffer if type(buffer) is Tensor else None
