"""The lightest probe: sees that models run, and nothing of what is in them."""

from __future__ import annotations

from threading import get_ident
from typing import Any, Protocol

import torch
from torch import nn

from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.patches import ModuleCallHandler, ModuleCallPatch
from distprof.module_walk import parameters_in
from distprof.probes.module_stack import Loading


class ModelListener(Protocol):
    """Told of the forwards of models: module calls from outside any module, of modules that have parameters."""

    @property
    def thread(self) -> int | None:
        """The thread whose forwards count, once there is one; a helper's models on other threads are no iterations."""

    def model_began(self, module: nn.Module) -> None: ...
    def model_ended(self, with_gradient: bool) -> None: ...


class ModelWatch:
    """Tells a listener of models running; used until it is known what the job does, and between forwards without
    optimizer.
    """

    def __init__(self, door: ModuleCallPatch, listener: ModelListener, loading: Loading) -> None:
        self._door = door
        self._listener = listener
        self._loading = loading
        self._running = False
        self._with_gradient = False
        self._handed_on: tuple[ModuleCallHandler, int] | None = None

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        if self._running or self._listener.thread not in (None, get_ident()):
            return None
        if self._loading.here or next(parameters_in(module), None) is None:
            return None
        self._running, self._with_gradient = True, torch.is_grad_enabled()
        self._listener.model_began(module)
        following = self._door.visitor
        if following is not None and following is not self:  # recording began with this very forward
            token = following.enter(module, args, kwargs)
            self._handed_on = None if token is None else (following, token)
        return 0

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        self._running = False
        if self._handed_on is not None:
            (following, handed), self._handed_on = self._handed_on, None
            following.leave(handed, output)
        elif self._door.visitor is self:
            self._listener.model_ended(self._with_gradient)
