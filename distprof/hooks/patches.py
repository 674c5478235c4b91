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
from torch import nn
from torch._C._dynamo.eval_frame import set_eval_frame

from distprof.hooks.dynamo import not_traced, skipped_frames

#: Handles an exception: raises it again only if it came from outside (see :mod:`distprof.external_exceptions`).
OnError = Callable[[str, BaseException], None]


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
        self._replaced = _ReplacedAttribute(nn.Module, "__call__", self._replacement)
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
        self._replaced = [_ReplacedAttribute(holder, attribute, self._replacement) for holder, attribute in where]

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


class _ReplacedAttribute:
    """Replaces one attribute from :meth:`apply` to :meth:`restore`, while ``wanted`` is true; the replacement stays in
    place longer when other code has patched the attribute since.
    """

    def __init__(self, holder: Any, attribute: str, replacement: Callable[[Callable[..., Any]], Any]) -> None:
        self._holder = holder
        self._attribute = attribute
        self._replacement = replacement
        self.original: Any = None
        self.ours: Any = None  # the replacement, while it is in place
        self.wanted = False

    def apply(self) -> None:
        """Puts the replacement in place, unless it is there.  An exception from outside may have interrupted an earlier
        call, or one of :meth:`restore`: then ``ours`` is set, and the original is in place.
        """
        self.wanted = True
        # As the holder has it: a method of a C++ class is another object than the class's attribute, and only that
        # object works as a method again.
        own = vars(self._holder).get(self._attribute)
        now = getattr(self._holder, self._attribute) if own is None else own
        if self.ours is None or now is self.original:
            self.original = now
            ours = self._replacement(now)
            ours.patch = self
            self.ours = ours  # before it is in place: what is there can be removed at any time
            setattr(self._holder, self._attribute, ours)

    def restore(self) -> None:
        """Puts the original back, unless other code has patched the attribute since.

        Also removes replacements directly below this one whose own patches were closed meanwhile.
        """
        self.wanted = False
        if self.ours is None or getattr(self._holder, self._attribute) is not self.ours:
            return
        while (below := _replacement_of(self.original)) is not None and not below.wanted:
            self.original, below.ours = below.original, None
        setattr(self._holder, self._attribute, self.original)
        self.ours = None


def _replacement_of(function: Any) -> _ReplacedAttribute | None:
    """Returns the replacement that made this function, if any.  A user's wrapper may have copied the ``patch`` mark."""
    patch = getattr(function, "patch", None)
    return patch if isinstance(patch, _ReplacedAttribute) and patch.ours is function else None


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
