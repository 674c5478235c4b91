"""Ops that are made of others: what they are taken apart into, where their parts are what torch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import Any

import torch

from distprof.flops.triton import body

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_COMPOSITE_OF_NESTED = getattr(torch._C.DispatchKey, "CompositeImplicitAutogradNestedTensor", None)

#: What torch raises where an op's parts do not bear its arguments.  A script's own error, of a handler of signals say,
#: is most often of another kind, and always passes where the op runs as ever.
REFUSED = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)

#: Control flow, and functions that the compiler keeps whole: what they do is in functions that they are given.
_BODIES = frozenset(
    {"cond", "while_loop", "while_loop_stack_output", "map_impl", "scan", "associative_scan", "invoke_subgraph"}
)


def parts(func: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """What runs the ops that this one is made of; None for one that is made of none."""
    return partial(func._op_dk, _COMPOSITE) if _has_kernel(func, _COMPOSITE) else body(func)


def is_whole(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether torch runs an op that has parts by a kernel of its own, for such tensors."""
    given = list(_tensors((*args, *kwargs.values())))
    if any(tensor.is_nested for tensor in given) and _has_kernel(func, _COMPOSITE_OF_NESTED):
        return True
    return bool(given) and _has_kernel(func, _backend(given))


def has_body(func: Any) -> bool:
    """Whether this op runs functions that it is given, and dispatches what they do."""
    return not isinstance(func, torch._ops.OpOverload) and getattr(func, "_name", None) in _BODIES


def _backend(tensors: Iterable[torch.Tensor]) -> Any:
    """The key of the kernel that runs once autograd is done."""
    keys: Any = reduce(or_, map(torch._C._dispatch_keys, tensors)) & torch._C._after_autograd_keyset
    for above in (torch._C.DispatchKey.Python, torch._C.DispatchKey.ADInplaceOrView):
        keys = keys.remove(above)
    return keys.highestPriorityTypeId()


def _has_kernel(func: torch._ops.OpOverload, key: Any) -> bool:
    try:
        return key is not None and bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))
    except RuntimeError:  # an op that only Python knows (prim.device, of fake tensors)
        return False


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Those among the values, and in lists among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def watched(value: Any, mode: Any) -> Any:
    """The functions among the arguments of an op that has a body, with ``mode`` on while they run."""
    if not callable(value) or isinstance(value, torch.Tensor):
        return value

    def run(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return value(*args, **kwargs)

    if hasattr(value, "_boxed_call"):
        run._boxed_call = value._boxed_call  # type: ignore[attr-defined]
    return run


def is_traced() -> bool:
    """Whether ops run to be written down, or to find out shapes: what they are given is for whoever does so."""
    keys = ("FAKE", "PROXY", "FUNCTIONAL")
    return any(torch._C._get_dispatch_mode(getattr(torch._C._TorchDispatchModeKey, key)) is not None for key in keys)
