"""The patches and the optimizer hook through which a recorder, or a standalone session, sees models run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from distprof.hooks.module_calls import ModuleCallHandler, ModuleCallPatch
from distprof.hooks.optimizer_hook import OptimizerHook
from distprof.hooks.patches import FunctionCallHandler, OnError, backward_patch
from distprof.probes.protocol import Pausing


class Instruments:
    """Owns the patches of module calls, the patch of backward, and the optimizer hook."""

    def __init__(
        self,
        backward_handler: FunctionCallHandler,
        optimizer_stepped: Callable[[torch.optim.Optimizer], None],
        on_error: OnError,
        *,
        modules: int = 1,
    ) -> None:
        """``modules`` is the number of patches of module calls: each has one handler."""
        self.module_patches = tuple(ModuleCallPatch(on_error) for _ in range(modules))
        self._paused: list[ModuleCallHandler | None] = [None] * modules
        self._backward_handler = backward_handler
        self._backward = backward_patch(on_error)
        self._optimizer_stepped = optimizer_stepped
        self._optimizer_hook: OptimizerHook | None = None

    def watch_optimizers(self) -> None:
        self._optimizer_hook = OptimizerHook(self._optimizer_stepped)

    def ignore_optimizers(self) -> None:
        if self._optimizer_hook is not None:
            self._optimizer_hook.remove()

    def watch_backward(self) -> None:
        self._backward.open(self._backward_handler)

    def ignore_backward(self) -> None:
        self._backward.close()

    def ignore_modules(self) -> None:
        """Closes the patches of module calls; a pause ends without its handlers."""
        self._paused = [None] * len(self.module_patches)
        for patch in reversed(self.module_patches):
            patch.close()

    def pause(self) -> None:
        """Takes the handlers off module calls while code runs that is not the job's work."""
        for index, patch in enumerate(self.module_patches):
            self._paused[index], patch.handler = patch.handler, None
            if isinstance(paused := self._paused[index], Pausing):
                paused.pause()

    def resume(self) -> None:
        """Puts the handlers back, unless other ones were opened since :meth:`pause`."""
        for index, patch in enumerate(self.module_patches):
            paused, self._paused[index] = self._paused[index], None
            if patch.handler is None:
                patch.handler = paused
                if isinstance(paused, Pausing):
                    paused.resume()

    def close(self) -> None:
        self.ignore_modules()
        self.ignore_backward()
        self.ignore_optimizers()
