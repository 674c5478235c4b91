"""A hook after the step of every torch optimizer, which can be removed while it runs.

torch iterates over these hooks while they run: removing any hook but the last raises in the user's step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer, optimizer

from distprof.hooks.dynamo import run_uncompiled


class OptimizerHook:
    """Calls ``callback`` with each optimizer that has stepped, until :meth:`remove`."""

    def __init__(self, callback: Callable[[Optimizer], None]) -> None:
        self._callback: Callable[[Optimizer], None] | None = callback
        self._running = 0  # running calls of the hook: steps may nest
        self._handle = optimizer.register_optimizer_step_post_hook(run_uncompiled(self._after_step))
        self._removal: Any = None

    def remove(self) -> None:
        """Disables the hook; removes it now, or before the next step where that would fail the running one."""
        self._callback = None
        if not self._running or _is_last(self._handle, optimizer._global_optimizer_post_hooks):
            self._handle.remove()
            self._cancel_removal()
        elif self._removal is None:
            self._removal = optimizer.register_optimizer_step_pre_hook(run_uncompiled(self._before_next_step))

    def _after_step(self, stepped: Optimizer, *_: Any) -> None:
        self._running += 1
        try:
            if self._callback is not None:
                self._callback(stepped)
        finally:
            self._running -= 1

    def _before_next_step(self, *_: Any) -> None:
        if not self._running:
            self._handle.remove()
            if _is_last(self._removal, optimizer._global_optimizer_pre_hooks):
                self._cancel_removal()

    def _cancel_removal(self) -> None:
        if self._removal is not None:
            self._removal.remove()
            self._removal = None


def _is_last(handle: Any, hooks: Any) -> bool:
    last: int | None = next(reversed(hooks), None)
    return bool(last == handle.id)
