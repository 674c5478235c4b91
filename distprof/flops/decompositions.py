"""Decompositions of composite ops into the ops that torch really runs, and ops that run functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial, reduce
from importlib import import_module
from operator import or_
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distprof.flops.triton import body
from distprof.tensors.nested_tensors import op_tensors

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_COMPOSITE_OF_NESTED = getattr(torch._C.DispatchKey, "CompositeImplicitAutogradNestedTensor", None)

#: Errors that torch raises where a decomposition does not accept an op's arguments: the op then runs whole.  A script's
#: own error, for example of a signal handler, mostly has another class, and always passes when the op runs whole.
REFUSED = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)

#: Control flow, and functions that the compiler keeps whole: their work is in their function arguments.
_BODIES = frozenset(
    {"cond", "while_loop", "while_loop_stack_output", "map_impl", "scan", "associative_scan", "invoke_subgraph"}
)

#: Whether a mode needs a rule for each higher-order op, as before torch 2.7.
_NEEDS_RULES = not hasattr(TorchDispatchMode, "supports_higher_order_operators")
#: The functions that then trace branches for autograd, on real tensors.
_TRACERS = frozenset({"create_fw_bw_graph", "create_fw_bw_graph_branches"})
#: Modules of torch._higher_order_ops that are imported late, perhaps while a mode is on.
_LATE = ("associative_scan", "map", "triton_kernel_wrap")


def decomposition(func: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """Returns a function that runs the ops into which ``func`` decomposes; None if it does not decompose."""
    return partial(func._op_dk, _COMPOSITE) if _has_kernel(func, _COMPOSITE) else body(func)


def is_whole(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether torch runs a composite op by a kernel of its own for these arguments."""
    given = list(op_tensors((*args, *kwargs.values())))
    if any(tensor.is_nested for tensor in given) and _has_kernel(func, _COMPOSITE_OF_NESTED):
        return True
    return bool(given) and _has_kernel(func, _backend(given))


def has_body(func: Any) -> bool:
    """Whether this op runs its function arguments, and dispatches their ops."""
    return not isinstance(func, torch._ops.OpOverload) and getattr(func, "_name", None) in _BODIES


def _backend(tensors: Iterable[torch.Tensor]) -> Any:
    """Returns the dispatch key of the kernel that runs after autograd's."""
    keys: Any = reduce(or_, map(torch._C._dispatch_keys, tensors)) & torch._C._after_autograd_keyset
    for above in (torch._C.DispatchKey.Python, torch._C.DispatchKey.ADInplaceOrView):
        keys = keys.remove(above)
    return keys.highestPriorityTypeId()


def _has_kernel(func: torch._ops.OpOverload, key: Any) -> bool:
    try:
        return key is not None and bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))
    except RuntimeError:  # an op that exists only in Python (prim.device, for fake tensors)
        return False


def with_mode(value: Any, mode: Any) -> Any:
    """Wraps a function argument so that ``mode`` is on while it runs; returns other values as they are."""
    if not callable(value) or isinstance(value, torch.Tensor):
        return value

    def run(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return value(*args, **kwargs)

    if hasattr(value, "_boxed_call"):
        run._boxed_call = value._boxed_call  # type: ignore[attr-defined]
    return run


def is_traced() -> bool:
    """Whether ops run to be traced, or to infer shapes, so that their function arguments must stay as they are."""
    keys = ("FAKE", "PROXY", "FUNCTIONAL")
    return any(torch._C._get_dispatch_mode(getattr(torch._C._TorchDispatchModeKey, key)) is not None for key in keys)


def may_be_traced_for_real() -> bool:
    """Whether this torch ever runs ops for which :func:`is_traced_for_real` is true."""
    return _NEEDS_RULES


def is_traced_for_real() -> bool:
    """Whether an op runs on tensors without meaning: so torch before 2.7 traces the branches of torch.cond."""
    frame: Any = sys._getframe(1) if _NEEDS_RULES else None
    while frame is not None and frame.f_code.co_name not in _TRACERS:
        frame = frame.f_back
    return frame is not None


def let_through(mode: type[TorchDispatchMode]) -> None:
    """Lets higher-order ops pass through modes of this class in torch before 2.7.

    Later a mode says so itself, by ``supports_higher_order_operators``.  Before, a higher-order op raises
    NotImplementedError, in the user's job, under every mode for which it has no rule.
    """
    if not _NEEDS_RULES:
        return
    if "torch._dynamo" in sys.modules:  # else these would import it, which takes seconds
        for name in _LATE:
            with suppress(Exception):  # another torch, or a missing package: what cannot be imported is not used
                import_module(f"torch._higher_order_ops.{name}")
    ops: dict[str, Any] = getattr(torch._ops, "_higher_order_ops", {})
    for op in ops.values():
        op.python_key_table.setdefault(mode, _rule(op))


def _rule(op: Any) -> Any:
    def run(mode: Any, *args: Any, **kwargs: Any) -> Any:
        return mode.__torch_dispatch__(op, (), args, kwargs)

    return run
