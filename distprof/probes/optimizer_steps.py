"""When optimizers step, however the step ends."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

from torch.autograd.profiler import record_function

from distprof.hooks.patches import FunctionEntryPatch, OnError

_MARK = "Optimizer.step#"  # what torch calls each step for its profiler


class OptimizerSteps:
    """Tells of the steps of all torch optimizers on one thread; steps may nest (ZeroRedundancyOptimizer).

    torch runs each in a ``record_function`` of its own, for its profiler, and that one is left when the step raises, as
    with an out-of-memory error in a closure.  Its hooks are not told then, and dynamo guards on them: one that comes
    and goes has compiled steps compiled again.
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
        """The innermost running step has done its work, and only hooks follow."""
        if self._open:
            self._open.pop()
            self._ended()

    def outer_began(self) -> None:
        """A step begins that is none of torch's, and has some of them in it."""
        if get_ident() == self._thread:
            self._in_outer = True
            self._began()

    def outer_ended(self) -> None:
        if self._in_outer and get_ident() == self._thread:
            self._in_outer = False
            self._ended()

    def forget(self) -> None:
        """Whatever runs now belongs to an iteration that is over."""
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
