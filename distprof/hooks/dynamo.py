"""Hides distprof's functions from dynamo, which looks at every frame between the graphs of compiled code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch._C._dynamo import eval_frame
from torch._C._dynamo.eval_frame import set_eval_frame

Function = TypeVar("Function", bound=Callable[..., Any])


def skipped_frames(function: Function, *, whole: bool = False) -> Function:
    """Returns ``function`` with its frame skipped by dynamo; with ``whole``, the frames that it calls are skipped too.

    Calls cost nothing more, but for ``whole`` in torch 2.6.  Dynamo still traces through the function from code that it
    compiles.
    """
    if hasattr(eval_frame, "skip_code"):  # torch 2.6 can skip a single frame only
        eval_frame.skip_code(function.__code__)
        return _with_dynamo_off(function) if whole else function
    skip, default = eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT
    strategy = eval_frame._FrameExecStrategy(skip, skip if whole else default)
    eval_frame.set_code_exec_strategy(function.__code__, strategy)
    return function


def hidden_from_dynamo(function: Function) -> Function:
    """Returns ``function`` with its frame, and the frames that it calls, skipped by dynamo."""
    return skipped_frames(function, whole=True)


def not_traced(function: Function) -> Function:
    """Returns ``function`` with its frame neither inspected nor traced by dynamo; the frames that it calls are."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]  # a quiet graph break
    return skipped_frames(function)


def run_uncompiled(hook: Callable[..., None]) -> Callable[..., None]:
    """Returns ``hook`` so that dynamo does not compile it when a compiled optimizer step calls it.

    Does what torch.compiler.disable does, without loading the compiler into jobs that compile nothing.
    """

    return not_traced(_with_dynamo_off(hook))


def _with_dynamo_off(function: Function) -> Function:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = set_eval_frame(None)
        try:
            return function(*args, **kwargs)
        finally:
            set_eval_frame(before)

    return cast("Function", skipped_frames(call))


@contextmanager
def out_of_trace() -> Iterator[None]:
    """Suspends torch.jit.trace, if it runs: otherwise sizes would be tensors and would become nodes of its graph."""
    get_state = getattr(torch._C, "_get_tracing_state", None)
    set_state = getattr(torch._C, "_set_tracing_state", None)
    state = get_state() if get_state is not None and set_state is not None else None
    if set_state is None or state is None:
        yield
        return
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
