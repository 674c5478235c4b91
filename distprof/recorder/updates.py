"""Which steps of optimizers are one update of the model.

An optimizer may step others inside of its own step: DeepSpeed's ZeRO does once for each group of parameters.  And there
may be one for each parameter, stepped as its gradient arrives in backward.  Such steps are one update.  It is complete
when the outer step, or the backward, has ended; before, nothing may be attached or taken away.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from types import FunctionType
from typing import Any

import torch
from torch import nn

from distprof.hooks.patches import FunctionPatch, OnError
from distprof.probes.counting.dispatch_stack import in_compiled_call

#: Frames by which a place is told from which an optimizer is stepped.
_SITE_FRAMES = 8
#: Steps inside of an outer one that are waited for its class to be seen stepping; it is stepped past its class then.
_PATIENCE = 128


class _Group:
    """Stands for the optimizers that step in one backward."""


class Updates:
    """Told of every optimizer's step, says when updates are complete."""

    def __init__(
        self,
        complete: Callable[[object], None],
        began: Callable[[], None],
        ended: Callable[[], None],
        models_are_seen: Callable[[], bool],
        on_error: OnError,
    ) -> None:
        """``complete`` is given what stands for the optimizers of an update, the same each time.  ``began`` and
        ``ended``: of outer steps, as they are seen.  ``models_are_seen``: whether ``model_begins`` will be called.
        """
        self._complete = complete
        self._models_are_seen = models_are_seen
        self._pending_outer: object | None = None  # an outer step, which has ended when a model begins
        self._in_backward = _InBackward()
        self._nested = _Nested(began, self._outer_ended, on_error)
        self._ended = ended

    @property
    def are_in_backward(self) -> bool:
        """Whether any optimizer ever stepped in a backward."""
        return self._in_backward.seen

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        if self._nested.is_inside():
            return
        if torch._C._current_graph_task_id() != -1:
            self._in_backward.stepped(optimizer)
            return
        whole = self._nested.outermost_of(optimizer)
        if whole is not None and whole is not optimizer and self._models_are_seen():
            self._pending_outer = whole
        elif whole is not None:
            self._complete(whole)

    def model_begins(self) -> None:
        begun, self._pending_outer = self._pending_outer, None
        if begun is not None:
            self._complete(begun)

    @property
    def backwards(self) -> int:
        """That run now, one in the other or beside it."""
        return sum(self._in_backward.running.values())

    def backward_began(self) -> None:
        self._in_backward.began()

    def backward_ended(self) -> None:
        """Of the outermost, or of one within."""
        group = self._in_backward.ended()
        if group is not None:
            self._complete(group)

    def _outer_ended(self, outer: object, stepped: bool) -> None:
        self._ended()
        if stepped:
            self._complete(outer)

    def close(self) -> None:
        self._nested.close()


class _InBackward:
    """Optimizers that step in backward, in groups: those that are met in one backward belong together."""

    def __init__(self) -> None:
        self.seen = False
        self._groups: weakref.WeakKeyDictionary[torch.optim.Optimizer, _Group] = weakref.WeakKeyDictionary()
        self._pending: _Group | None = None
        self.running: dict[int, int] = {}  # backwards that run, by thread: they may nest

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self.seen = True
        group = self._groups.get(optimizer)
        if group is None:
            group = self._groups[optimizer] = self._pending or _Group()
        self._pending = self._pending or group

    def began(self) -> None:
        thread = get_ident()
        self.running[thread] = self.running.get(thread, 0) + 1

    def ended(self) -> _Group | None:
        """What has stepped, once no backward runs any more."""
        thread = get_ident()
        left = self.running.pop(thread, 1) - 1
        if left > 0:
            self.running[thread] = left
        if self.running:
            return None
        group, self._pending = self._pending, None
        return group


@dataclass
class _Step:
    """Of an optimizer, as it runs."""

    outer: object
    others_stepped: bool = False


class _Nested:
    """Optimizers that step others inside of their own step, and when such a step begins and ends."""

    def __init__(self, began: Callable[[], None], ended: Callable[[object, bool], None], on_error: OnError) -> None:
        self._began = began
        self._ended = ended
        self._on_error = on_error
        self._patches: dict[type, FunctionPatch] = {}
        self._unpatchable: set[type] = set()  # classes that are not asked when their objects step
        self._plain_sites: set[tuple[int, ...]] = set()  # places from which optimizers are stepped, in no other's step
        self._running: dict[int, list[_Step]] = {}  # by thread
        self._unseen = 0  # steps inside of outer ones of which no beginning was seen

    def is_inside(self) -> bool:
        """Whether an outer step runs: what has stepped is a part of it."""
        running = self._running.get(get_ident()) if self._running else None
        if running:
            running[0].others_stepped = True
        return bool(running)

    def outermost_of(self, optimizer: torch.optim.Optimizer) -> object | None:
        """What has stepped with this one, in no step that was seen to begin: itself, if it is no part of another; None
        for a part of what was given already.
        """
        place = _call_site()
        if place in self._plain_sites:
            return optimizer
        outer = _outermost()
        owner = None if outer is None or in_compiled_call() else _class_with_step(outer)
        if owner is None or owner in self._unpatchable:
            self._plain_sites.add(place)
            return optimizer
        return outer if self._is_first(owner) else None

    def _is_first(self, owner: type) -> bool:
        """Of the parts of a step that began before its class was looked at, or that is stepped past its class."""
        self._unseen += 1
        if owner not in self._patches:
            patch = self._patches[owner] = FunctionPatch(((owner, "step"),), "an optimizer's step", self._on_error)
            patch.open(self)
            return True
        if self._unseen > _PATIENCE:
            self._unpatchable.add(owner)
        return False

    def close(self) -> None:
        for patch in self._patches.values():
            patch.close()
        self._patches.clear()

    def begin(self, args: tuple[Any, ...]) -> None:
        self._unseen = 0
        running = self._running.setdefault(get_ident(), [])
        running.append(_Step(args[0] if args else self))
        if len(running) == 1:
            self._began()

    def end(self) -> None:
        thread = get_ident()
        running = self._running.get(thread)
        if running:
            step = running.pop()
            if not running:
                del self._running[thread]
                self._ended(step.outer, step.others_stepped)


def _call_site() -> tuple[int, ...]:
    frame: Any = sys._getframe(3)
    codes: list[int] = []
    while frame is not None and len(codes) < _SITE_FRAMES:
        codes.append(id(frame.f_code))
        frame = frame.f_back
    return tuple(codes)


def _outermost() -> Any:
    """The optimizer whose ``step`` runs on this thread outside of all others, if any does."""
    found, frame = None, sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "step" and code.co_argcount and (one := _first_argument(frame)) is not None:
            found = one
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _first_argument(frame: Any) -> Any:
    """If it is an optimizer."""
    given = frame.f_locals
    one = given.get(frame.f_code.co_varnames[0])
    if (
        type(given) is dict
    ):  # a copy, until Python 3.13: it would keep what it holds alive for as long as the frame runs
        given.clear()
    return one if _is_optimizer(one) else None


def _is_optimizer(one: Any) -> bool:
    """Whether it is one of torch's, or is made like them."""
    kind = type(one)
    if isinstance(one, nn.Module) or not hasattr(kind, "step"):
        return False
    return isinstance(one, torch.optim.Optimizer) or (
        hasattr(kind, "zero_grad") and (hasattr(kind, "param_groups") or "param_groups" in getattr(one, "__dict__", ()))
    )


def _class_with_step(outer: object) -> type | None:
    """The class that is asked when this object steps; None where that is not told."""
    kind = type(outer)
    owner = next((one for one in kind.__mro__ if "step" in vars(one)), None)
    if owner is None or "step" in vars(outer) or not kind.__weakrefoffset__:
        return None
    return owner if isinstance(vars(owner)["step"], FunctionType) else None
