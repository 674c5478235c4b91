"""Patches of the torch functions through which a recorder sees a job; each is in place only while it is needed.

A patch replaces a function of torch on its class or module, so that it sees every call of this kind and leaves nothing
on the user's objects: deepcopy, pickle, signatures and hooks are not affected.  Patches never change a result; an
exception in distprof's own code ends the recording, not the user's job.  If other code has patched the same function
later, closing leaves that patch in place, and the replacement below it passes every call on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Container
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch._C._dynamo.eval_frame import set_eval_frame

from distprof.hooks.dynamo import not_traced
from distprof.hooks.replaced_attribute import ReplacedAttribute

#: Handles an exception: raises it again only if it came from outside (see :mod:`distprof.external_exceptions`).
OnError = Callable[[str, BaseException], None]


class FunctionCallHandler(Protocol):
    """Receives the begin of each call, with its positional arguments, and its end; calls may nest."""

    def begin(self, args: tuple[Any, ...]) -> None: ...
    def end(self) -> None: ...


Handler = TypeVar("Handler")


class _FunctionPatchBase(Generic[Handler]):
    """Replaces a function (or method) in every place where it is looked up."""

    def __init__(self, where: tuple[tuple[Any, str], ...], name: str, on_error: OnError) -> None:
        self._name = name
        self._on_error = on_error
        self._handler: Handler | None = None
        self._replaced = [ReplacedAttribute(holder, attribute, self._replacement) for holder, attribute in where]

    def open(self, handler: Handler) -> None:
        """Passes all calls to ``handler`` from now on, in place of the handler before."""
        self._handler = handler
        for patch in self._replaced:
            patch.apply()

    def close(self) -> None:
        self._handler = None
        for patch in self._replaced:
            patch.restore()

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError

    @not_traced
    def _call_handler(self, call_handler: Callable[..., Any], *given: Any) -> Any:
        """Calls the handler as :func:`distprof.hooks.dynamo.run_uncompiled` would, but in one frame.  Returns its
        result, None if it raised.
        """
        before = set_eval_frame(None)
        try:
            return call_handler(*given)
        except BaseException as error:
            self._on_error(self._name, error)
            return None
        finally:
            set_eval_frame(before)


class FunctionPatch(_FunctionPatchBase[FunctionCallHandler]):
    """Passes the begin and the end of each call to the handler."""

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        call_handler = self._call_handler

        @not_traced
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            handler = self._handler
            if handler is None:
                return original(*args, **kwargs)
            began = False
            try:
                call_handler(handler.begin, args)
                began = True
                return original(*args, **kwargs)
            finally:
                if began:
                    call_handler(handler.end)
                elif (error := sys.exc_info()[1]) is not None:
                    self._on_error(self._name, error)

        return replacement


class FunctionEntryPatch(_FunctionPatchBase[Callable[[tuple[Any, ...]], None]]):
    """Passes the positional arguments of each call to the handler, before the call."""

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        call_handler = self._call_handler

        @not_traced
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if (handler := self._handler) is not None:
                call_handler(handler, args)
            return original(*args, **kwargs)

        return replacement


class CallHandler(Protocol):
    """Receives the begin of each call with its arguments, and its end with its result; calls may nest."""

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs before the call.  Returns a token, or None if ``end`` is not to be called for this call."""

    def end(self, token: Any, result: Any, raised: bool) -> None:
        """Runs after the call; ``result`` is None if it ``raised``."""


class CallPatch(_FunctionPatchBase[CallHandler]):
    """Passes the begin and the result of each call to the handler; with ``only``, of those methods' calls whose object
    has its ``id`` in there.
    """

    def __init__(
        self,
        where: tuple[tuple[Any, str], ...],
        name: str,
        on_error: OnError,
        *,
        only: Container[int] | None = None,
    ) -> None:
        super().__init__(where, name, on_error)
        self._only = only

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        call_handler, only = self._call_handler, self._only

        @not_traced
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            handler = self._handler
            if handler is None or (only is not None and not (args and id(args[0]) in only)):
                return original(*args, **kwargs)
            token = call_handler(handler.begin, args, kwargs)
            result, raised = None, True
            try:
                result = original(*args, **kwargs)
                raised = False
                return result
            finally:
                if token is not None:
                    call_handler(handler.end, token, result, raised)

        return replacement


def backward_patch(on_error: OnError) -> FunctionPatch:
    """Returns a patch for every ``backward()`` and ``autograd.grad``: all call the function that runs autograd's
    engine.
    """
    where = ((torch.autograd, "_engine_run_backward"), (torch.autograd.graph, "_engine_run_backward"))
    return FunctionPatch(where, "backward", on_error)


def dataloader_patch(on_error: OnError) -> FunctionPatch:
    """Returns a patch for the wait for the next batch of any torch DataLoader."""
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    return FunctionPatch(((_BaseDataLoaderIter, "__next__"),), "data loading", on_error)
