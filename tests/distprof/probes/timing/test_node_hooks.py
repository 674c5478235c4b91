"""Tests of the hooks that begin the backward of a module when a gradient arrives at a node."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.probes.timing.module_timer import _Hooks


def test_the_hook_of_a_row_is_made_by_nothing_that_a_script_can_see() -> None:
    """Neither a mode for ops, nor one for functions, nor torch's profiler: it is made in the middle of a forward."""
    seen: list[str] = []

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(repr(function))
            return function(*args, **(kwargs or {}))

    called: list[int] = []
    hooks = _Hooks(lambda owner, gradient: called.append(owner))
    with Ops(), Functions(), profile() as profiler:
        carrier = hooks[3]
    assert not seen and not profiler.events()
    y = torch.ones(2, requires_grad=True) * 2
    assert y.grad_fn is not None
    y.grad_fn._register_hook_dict(carrier)
    y.sum().backward()
    assert called == [~3] and hooks[3] is carrier
