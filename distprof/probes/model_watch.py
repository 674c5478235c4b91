"""The cheapest handler: sees that models run, without looking inside them."""

from __future__ import annotations

from threading import get_ident
from typing import Any, Protocol

import torch
from torch import nn

from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.module_calls import ModuleCallHandler, ModuleCallPatch
from distprof.module_walk import parameters_in
from distprof.probes.module_stack import Loading


class ModelListener(Protocol):
    """Receives the forwards of models: calls of modules with parameters, made outside of any module."""

    @property
    def thread(self) -> int | None:
        """The thread that trains, once known; models that run on other threads are not iterations."""

    def model_began(self, module: nn.Module) -> None: ...
    def model_ended(self, with_gradient: bool) -> None: ...


class ModelWatch:
    """Passes the forwards of models to a listener, until it is known what the job does, and between forwards without an
    optimizer.
    """

    def __init__(self, patch: ModuleCallPatch, listener: ModelListener, loading: Loading) -> None:
        self._module_patch = patch
        self._listener = listener
        self._loading = loading
        self._running = False
        self._with_gradient = False
        self._following: tuple[ModuleCallHandler, int] | None = None

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        if self._running or self._listener.thread not in (None, get_ident()):
            return None
        if self._loading.here or next(parameters_in(module), None) is None:
            return None
        self._running, self._with_gradient = True, torch.is_grad_enabled()
        self._listener.model_began(module)
        following = self._module_patch.handler
        if following is not None and following is not self:  # the listener has started recording with this forward
            token = following.enter(module, args, kwargs)
            self._following = None if token is None else (following, token)
        return 0

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        self._running = False
        if self._following is not None:
            (following, token_of_following), self._following = self._following, None
            following.leave(token_of_following, output)
        elif self._module_patch.handler is self:
            self._listener.model_ended(self._with_gradient)
