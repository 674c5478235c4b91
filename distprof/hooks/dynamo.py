"""Our own code where compiled code calls it, or what it calls does: between its graphs dynamo looks at every frame."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch._C._dynamo import eval_frame
from torch._C._dynamo.eval_frame import set_eval_frame

Function = TypeVar("Function", bound=Callable[..., Any])


def skipped_frames(function: Function, *, whole: bool = False) -> Function:
    """``function``, whose frame dynamo does not look at; with ``whole``, nor at those of what it calls.

    Costs its calls nothing.  Dynamo still traces through it, from code that it compiles.
    """
    if hasattr(eval_frame, "skip_code"):  # torch 2.6 knows no more than that
        eval_frame.skip_code(function.__code__)
        return function
    skip, default = eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT
    strategy = eval_frame._FrameExecStrategy(skip, skip if whole else default)
    eval_frame.set_code_exec_strategy(function.__code__, strategy)
    return function


def hidden_from_dynamo(function: Function) -> Function:
    """``function``, not looked at by dynamo, and neither is what it calls."""
    return skipped_frames(function, whole=True)


def not_traced(function: Function) -> Function:
    """``function``, not looked at by dynamo, nor traced through; what it calls is."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]  # a quiet graph break
    return skipped_frames(function)


def run_uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """``hook``, kept from dynamo: what a compiled optimizer step calls it would otherwise compile, too.

    As torch.compiler.disable, but without loading the compiler into jobs that compile nothing.
    """

    @not_traced
    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> None:
        before = set_eval_frame(None)
        try:
            hook(*args, **kwargs)
        finally:
            set_eval_frame(before)

    return call


@contextmanager
def out_of_trace() -> Iterator[None]:
    """In here torch.jit.trace, if it runs, notes nothing: otherwise sizes are tensors, and nodes of its graph."""
    known = hasattr(torch._C, "_get_tracing_state") and hasattr(torch._C, "_set_tracing_state")
    state = torch._C._get_tracing_state() if known else None
    if state is None:
        yield
        return
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)
