"""The few places of torch through which a recorder sees a job, each replaced for as long as it is needed.

A door is a function of torch that every call of its kind goes through: replaced on its class or module, it shows all of
them and leaves nothing on the user's own objects, so that deepcopy, pickle, signatures and hooks know nothing of it.
Doors never change a result, and an exception of ours in them closes the recorder, not the user's job.  A patch that
somebody put over a door's stays when the door closes, and the door's own below it then hands every call straight on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch._C._dynamo.eval_frame import set_eval_frame

from distprof.hooks.dynamo import not_traced, skipped_frames

#: Raises what came from outside (see :mod:`distprof.external_exceptions`), and nothing else.
OnError = Callable[[str, BaseException], None]


class ModuleCallHandler(Protocol):
    """Told of every module call of the process, on whatever thread.

    One that has ``around(original, is_plain, module, args, kwargs)``, too, does all that the door does with a call, the
    call itself included, and returns what that gave; ``is_plain`` says that ``original`` is torch's own.
    """

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        """Before the call.  None: no interest in this call, ``leave`` is not called for it."""

    def leave(self, token: int, output: Any) -> None:
        """After the call, with what ``enter`` returned; ``output`` is None when the call raised."""


class ModuleCallPatch:
    """``nn.Module.__call__``: every module call but a direct ``.forward()``.

    Compiled code stays as it was, whether it was compiled before or is while the door is open: dynamo follows the
    ``is_compiling`` line straight to the original.
    """

    def __init__(self, on_error: OnError) -> None:
        self._visitor: ModuleCallHandler | None = None
        self._around: Callable[..., Any] | None = None  # the visitor's own
        self._on_error = on_error
        self._patch = _Patch(nn.Module, "__call__", self._replacement)

    @property
    def visitor(self) -> ModuleCallHandler | None:
        return self._visitor

    @visitor.setter
    def visitor(self, visitor: ModuleCallHandler | None) -> None:
        self._visitor = visitor
        self._around = getattr(visitor, "around", None)

    def open(self, visitor: ModuleCallHandler) -> None:
        """Let ``visitor`` see all calls from now on; replaces the visitor before it."""
        self.visitor = visitor
        self._patch.put()
        _swap_for_dynamo(self._patch.original, self._patch.ours)

    def close(self) -> None:
        self.visitor = None
        ours = self._patch.ours
        self._patch.take_back()
        _swap_for_dynamo(ours, self._patch.original)

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        traced, compiler = torch.compiler.is_dynamo_compiling, torch.compiler
        door, on_error = self, self._on_error
        is_plain = _is_plain(original)

        @skipped_frames
        @functools.wraps(original)
        def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            # This is ``torch.compiler.is_compiling()``, whose two frames would be a good part of what the door costs.
            if traced() or compiler._is_compiling_flag or (visitor := door._visitor) is None:
                return original(self, *args, **kwargs)
            if (around := door._around) is not None:
                return around(original, is_plain, self, args, kwargs)
            try:
                token = visitor.enter(self, args, kwargs)
            except RecursionError:  # so near the limit nothing is to be seen, nor can be said
                token = None
            except BaseException as error:
                on_error("entering a module", error)
                token = None
            if token is None and not (is_plain and self._compiled_call_impl is None):
                return original(self, *args, **kwargs)
            if token is None:  # no frame more than torch takes
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
                    visitor.leave(token, output)
                except BaseException as error:
                    on_error("leaving a module", error)

        return __call__


def _is_plain(call: Any) -> bool:
    """Whether this is torch's own ``nn.Module.__call__``, which asks for ``_compiled_call_impl`` and hands on to
    ``_call_impl``, and does nothing else.  To do so in its place makes up for the cost of the door.
    """
    names = ("_compiled_call_impl", "_call_impl")
    return call is nn.Module._wrapped_call_impl and call.__code__.co_names == names


def _swap_for_dynamo(before: Any, now: Any) -> None:
    """Let dynamo take ``now`` for torch's own ``nn.Module.__call__`` where it took ``before`` for it.

    It remembers the one of its import and goes straight to ``forward`` where it finds that one.  Where it finds another
    it traces through it and guards on it: code compiled with the door open would be compiled again when it closes, and
    after an import with the door open every compilation would take the long way for the rest of the job.
    """
    for name in ("torch._dynamo.utils", "torch._dynamo.variables.nn_module"):  # which takes it from the first
        dynamo: Any = sys.modules.get(name)
        if before is not None and getattr(dynamo, "unpatched_nn_module_call", None) is before:
            dynamo.unpatched_nn_module_call = now


class FunctionCallHandler(Protocol):
    """Told when a span begins, with the call's positional arguments, and when it ends; spans of one kind may nest."""

    def begin(self, args: tuple[Any, ...]) -> None: ...
    def end(self) -> None: ...


Visitor = TypeVar("Visitor")


class _FunctionPatchBase(Generic[Visitor]):
    """A function (or method) that is replaced wherever it is looked up."""

    def __init__(self, where: tuple[tuple[Any, str], ...], name: str, on_error: OnError) -> None:
        self._name = name
        self._on_error = on_error
        self._visitor: Visitor | None = None
        self._patches = [_Patch(holder, attribute, self._replacement) for holder, attribute in where]

    def open(self, visitor: Visitor) -> None:
        """Let ``visitor`` see all calls from now on; replaces the visitor before it."""
        self._visitor = visitor
        for patch in self._patches:
            patch.put()

    def close(self) -> None:
        self._visitor = None
        for patch in self._patches:
            patch.take_back()

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        raise NotImplementedError

    @not_traced
    def _tell(self, tell: Callable[..., None], *given: Any) -> None:
        """Unseen by dynamo, as :func:`distprof.hooks.dynamo.run_uncompiled` makes it, in one frame."""
        before = set_eval_frame(None)
        try:
            tell(*given)
        except BaseException as error:
            self._on_error(self._name, error)
        finally:
            set_eval_frame(before)


class FunctionPatch(_FunctionPatchBase[FunctionCallHandler]):
    """Calls are spans: ``begin``, the call, ``end``."""

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        tell = self._tell

        @not_traced
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            visitor = self._visitor
            if visitor is None:
                return original(*args, **kwargs)
            began = False
            try:
                tell(visitor.begin, args)
                began = True
                return original(*args, **kwargs)
            finally:
                if began:
                    tell(visitor.end)
                elif (error := sys.exc_info()[1]) is not None:
                    self._on_error(self._name, error)

        return replacement


class FunctionEntryPatch(_FunctionPatchBase[Callable[[tuple[Any, ...]], None]]):
    """Calls are told as they begin, with their positional arguments."""

    def _replacement(self, original: Callable[..., Any]) -> Callable[..., Any]:
        tell = self._tell

        @not_traced
        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if (visitor := self._visitor) is not None:
                tell(visitor, args)
            return original(*args, **kwargs)

        return replacement


class _Patch:
    """One attribute, replaced for a time.  ``wanted`` from :meth:`put` to :meth:`take_back`; below somebody's patch it
    stays in place for longer.
    """

    def __init__(self, holder: Any, attribute: str, replacement: Callable[[Callable[..., Any]], Any]) -> None:
        self._holder = holder
        self._attribute = attribute
        self._replacement = replacement
        self.original: Any = None
        self.ours: Any = None  # while it is in place
        self.wanted = False

    def put(self) -> None:
        self.wanted = True
        if self.ours is None:
            self.original = getattr(self._holder, self._attribute)
            ours = self._replacement(self.original)
            ours.patch = self
            try:  # an exception may come from outside
                setattr(self._holder, self._attribute, ours)
            finally:
                self.ours = ours

    def take_back(self) -> None:
        """Unless somebody's patch lies over it, which is not ours to take away.  With it goes what it lies on, of
        another door that was closed meanwhile.
        """
        self.wanted = False
        if self.ours is None or getattr(self._holder, self._attribute) is not self.ours:
            return
        while (below := _patch_of(self.original)) is not None and not below.wanted:
            self.original, below.ours = below.original, None
        setattr(self._holder, self._attribute, self.original)
        self.ours = None


def _patch_of(function: Any) -> _Patch | None:
    """Whose replacement this is, if it is one.  A user's wrapper may bear the mark of the one that it wraps."""
    patch = getattr(function, "patch", None)
    return patch if isinstance(patch, _Patch) and patch.ours is function else None


def backward_patch(on_error: OnError) -> FunctionPatch:
    """Every ``backward()`` and ``autograd.grad``: they all end in the function that runs autograd's engine."""
    where = ((torch.autograd, "_engine_run_backward"), (torch.autograd.graph, "_engine_run_backward"))
    return FunctionPatch(where, "backward", on_error)


def dataloader_patch(on_error: OnError) -> FunctionPatch:
    """The wait for the next batch of any torch DataLoader."""
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    return FunctionPatch(((_BaseDataLoaderIter, "__next__"),), "data loading", on_error)
