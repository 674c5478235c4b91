"""Finds the begin and the end of optimizer steps, also of those that raise."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch.autograd.profiler import record_function

from distprof.hooks.patches import FunctionEntryPatch, OnError

_MARK = "Optimizer.step#"  # the prefix of torch's record_function for each step


class OptimizerSteps:
    """Calls ``began`` and ``ended`` for the steps of all torch optimizers on one thread; steps may nest
    (ZeroRedundancyOptimizer).

    torch runs each step in a ``record_function``, for its profiler, which also ends when the step raises, as with an
    out-of-memory error in a closure.  torch's step hooks are not called then, and dynamo guards on them: adding and
    removing one makes dynamo compile steps again.
    """

    def __init__(self, began: Callable[[], None], ended: Callable[[], None], on_error: OnError) -> None:
        self._began = began
        self._ended = ended
        self._thread = get_ident()
        self._open: list[record_function] = []
        self._in_outer = False
        self._entering = FunctionEntryPatch(((record_function, "__enter__"),), "an optimizer's step", on_error)
        self._leaving = FunctionEntryPatch(((record_function, "__exit__"),), "an optimizer's step", on_error)

    def open(self) -> None:
        self._entering.open(self._enter)
        self._leaving.open(self._exit)

    def close(self) -> None:
        self._entering.close()
        self._leaving.close()

    def step_ended(self) -> None:
        """Ends the innermost running step: only hooks follow."""
        if self._open:
            self._open.pop()
            self._ended()

    def outer_began(self) -> None:
        """Begins the step of an optimizer that is not torch's and steps torch optimizers inside."""
        if get_ident() == self._thread:
            self._in_outer = True
            self._began()

    def outer_ended(self) -> None:
        if self._in_outer and get_ident() == self._thread:
            self._in_outer = False
            self._ended()

    def forget(self) -> None:
        """Forgets the running steps: they belong to an iteration that is over."""
        self._open.clear()
        self._in_outer = False

    def _enter(self, args: tuple[Any, ...]) -> None:
        mark: record_function = args[0]
        if mark.name.startswith(_MARK) and get_ident() == self._thread:
            self._open.append(mark)
            self._began()

    def _exit(self, args: tuple[Any, ...]) -> None:
        if self._open and self._open[-1] is args[0]:  # the step has raised
            self.step_ended()
