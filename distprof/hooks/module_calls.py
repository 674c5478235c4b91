"""The patch of ``nn.Module.__call__``, through which a recorder sees every call of a module.

It keeps the promises of all patches: :mod:`distprof.hooks.patches`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from distprof.hooks.dynamo import skipped_frames
from distprof.hooks.patches import OnError
from distprof.hooks.replaced_attribute import ReplacedAttribute


class ModuleCallHandler(Protocol):
    """Receives every module call of the process, on any thread.

    A handler that also has ``around(original, is_plain, module, args, kwargs)`` does all that the patch does with a
    call, makes the call itself and returns its result; ``is_plain`` says that ``original`` is torch's own function.
    """

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Runs before the call.  Returns a token, or None if ``leave`` is not to be called for this call."""

    def leave(self, token: int, output: Any) -> None:
        """Runs after the call, with the token of ``enter``; ``output`` is None when the call raised."""


class ModuleCallPatch:
    """Patches ``nn.Module.__call__``: sees every module call except a direct ``.forward()``.

    Compiled code does not change, whether it was compiled before the patch was opened or while it is open: dynamo
    follows the ``is_compiling`` line to the original function.
    """

    def __init__(self, on_error: OnError) -> None:
        self._handler: ModuleCallHandler | None = None
        self._around: Callable[..., Any] | None = None  # the handler's method, if it has one
        self._on_error = on_error
        self._replaced = ReplacedAttribute(nn.Module, "__call__", self._replacement)
        self._shown: Any = None  # the replacement that dynamo may hold

    @property
    def handler(self) -> ModuleCallHandler | None:
        return self._handler

    @handler.setter
    def handler(self, handler: ModuleCallHandler | None) -> None:
        self._handler = handler
        self._around = getattr(handler, "around", None)

    def open(self, handler: ModuleCallHandler) -> None:
        """Passes all calls to ``handler`` from now on, in place of the handler before."""
        self.handler = handler
        self._replaced.apply()
        self._shown = self._replaced.ours
        _swap_for_dynamo(self._replaced.original, self._shown)

    def close(self) -> None:
        """Puts everything back; a second call finishes what an exception from outside has interrupted."""
        self.handler = None
        self._replaced.restore()
        _swap_for_dynamo(self._shown, self._replaced.original)
        self._shown = None

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        traced, compiler = torch.compiler.is_dynamo_compiling, torch.compiler
        patch, on_error = self, self._on_error
        is_plain = _is_plain(original)

        @skipped_frames
        @functools.wraps(original)
        def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # This is ``torch.compiler.is_compiling()`` inline: its two frames would be a large part of the patch's
            # cost.
            if traced() or compiler._is_compiling_flag or (handler := patch._handler) is None:
                return original(self, *args, **kwargs)
            if (around := patch._around) is not None:
                return around(original, is_plain, self, args, kwargs)
            try:
                token = handler.enter(self, args, kwargs)
            except RecursionError:  # too near the limit to watch the call or to report anything
                token = None
            except BaseException as error:
                on_error("entering a module", error)
                token = None
            if token is None and not (is_plain and self._compiled_call_impl is None):
                return original(self, *args, **kwargs)
            if token is None:  # no more frames than torch itself uses
                return self._call_impl(*args, **kwargs)
            output = None
            try:
                if is_plain and self._compiled_call_impl is None:
                    output = self._call_impl(*args, **kwargs)
                else:
                    output = original(self, *args, **kwargs)
                return output
            finally:
                try:
                    handler.leave(token, output)
                except BaseException as error:
                    on_error("leaving a module", error)

        return __call__


def _is_plain(call: Any) -> bool:
    """Returns whether this is torch's own ``nn.Module.__call__``, which only checks ``_compiled_call_impl`` and calls
    ``_call_impl``.  The patch then does so itself, which makes up for its own cost.
    """
    names = ("_compiled_call_impl", "_call_impl")
    return call is nn.Module._wrapped_call_impl and call.__code__.co_names == names


def _swap_for_dynamo(before: Any, now: Any) -> None:
    """Makes dynamo treat ``now`` as torch's own ``nn.Module.__call__`` where it treated ``before`` so.

    Dynamo remembers the function that it found at its import, and goes directly to ``forward`` where it finds this one.
    It traces through any other function and guards on it: code compiled with the patch open would be compiled again
    when the patch closes, and after an import with the patch open every compilation would be slower for the rest of the
    job.
    """
    for name in ("torch._dynamo.utils", "torch._dynamo.variables.nn_module"):  # the second imports it from the first
        dynamo: Any = sys.modules.get(name)
        if before is not None and getattr(dynamo, "unpatched_nn_module_call", None) is before:
            dynamo.unpatched_nn_module_call = now
