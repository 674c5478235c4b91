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
        self._before = run_uncompiled(self._before_next_step)

    def remove(self) -> None:
        """Disables the hook; removes it now, or before the next step where that would fail the running one."""
        self._callback = None
        if not self._running or _is_last(self._handle, optimizer._global_optimizer_post_hooks):
            self._handle.remove()
            self._cancel_removal()
        elif self._before not in optimizer._global_optimizer_pre_hooks.values():
            optimizer.register_optimizer_step_pre_hook(self._before)

    def _after_step(self, stepped: Optimizer, *_: Any) -> None:
        before = self._running
        try:
            self._running = before + 1
            if self._callback is not None:
                self._callback(stepped)
        finally:
            self._running = before

    def _before_next_step(self, *_: Any) -> None:
        if not self._running:
            self._handle.remove()
            if next(reversed(optimizer._global_optimizer_pre_hooks.values()), None) is self._before:
                self._cancel_removal()

    def _cancel_removal(self) -> None:
        """Finds the hook by itself: an exception from outside may come before its handle is kept."""
        hooks = optimizer._global_optimizer_pre_hooks
        for number in [number for number, hook in hooks.items() if hook is self._before]:
            del hooks[number]


def _is_last(handle: Any, hooks: Any) -> bool:
    last: int | None = next(reversed(hooks), None)
    return bool(last == handle.id)
