"""torch's hook after every optimizer's step, in a form that may be taken away from inside of itself.

torch goes through these hooks while they run, and raises in the user's step when one before the last is removed then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer, optimizer

from distprof.hooks.dynamo import run_uncompiled


class OptimizerHook:
    """Calls ``stepped`` with each optimizer that has stepped, until :meth:`remove`."""

    def __init__(self, stepped: Callable[[Optimizer], None]) -> None:
        self._stepped: Callable[[Optimizer], None] | None = stepped
        self._running = 0  # calls of the hook: steps may nest
        self._handle = optimizer.register_optimizer_step_post_hook(run_uncompiled(self._after))
        self._later: Any = None

    def remove(self) -> None:
        """Now, or where that would fail the step that runs, at the beginning of the next; it does nothing any more."""
        self._stepped = None
        if not self._running or _is_last(self._handle, optimizer._global_optimizer_post_hooks):
            self._handle.remove()
            self._forget_later()
        elif self._later is None:
            self._later = optimizer.register_optimizer_step_pre_hook(run_uncompiled(self._before_next))

    def _after(self, stepped: Optimizer, *_: Any) -> None:
        self._running += 1
        try:
            if self._stepped is not None:
                self._stepped(stepped)
        finally:
            self._running -= 1

    def _before_next(self, *_: Any) -> None:
        if not self._running:
            self._handle.remove()
            if _is_last(self._later, optimizer._global_optimizer_pre_hooks):
                self._forget_later()

    def _forget_later(self) -> None:
        if self._later is not None:
            self._later.remove()
            self._later = None


def _is_last(handle: Any, hooks: Any) -> bool:
    last: int | None = next(reversed(hooks), None)
    return bool(last == handle.id)
