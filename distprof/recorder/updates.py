"""Groups optimizer steps into updates of the model.

An optimizer may step others inside its own step: DeepSpeed's ZeRO does so once for each group of parameters.  There may
also be one optimizer for each parameter, stepped in backward as its gradient arrives.  Such steps are one update, which
is complete when the outer step, or the backward, has ended; until then no probe may be attached or detached.
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

#: Frames that identify the place from which an optimizer is stepped.
_SITE_FRAMES = 8
#: Inner steps after which an outer step counts as one that bypasses the ``step`` of its class.
_PATIENCE = 128


class _Group:
    """Represents the optimizers that step in one backward."""


class Updates:
    """Receives every optimizer step, and reports when an update is complete."""

    def __init__(
        self,
        complete: Callable[[object], None],
        began: Callable[[], None],
        ended: Callable[[], None],
        models_are_seen: Callable[[], bool],
        on_error: OnError,
    ) -> None:
        """``complete`` gets the object that represents the optimizers of an update, the same each time.  ``began`` and
        ``ended`` are called for outer steps.  ``models_are_seen`` returns whether ``model_begins`` will be called.
        """
        self._complete = complete
        self._models_are_seen = models_are_seen
        self._pending_outer: object | None = None  # an outer step that has ended when the next model begins
        self._in_backward = _InBackward()
        self._nested = _Nested(began, self._outer_ended, on_error)
        self._ended = ended

    @property
    def are_in_backward(self) -> bool:
        """Whether any optimizer has ever stepped in a backward."""
        return self._in_backward.seen

    @property
    def are_plain(self) -> bool:
        """Whether each optimizer has stepped by itself so far: in no backward, and not inside another one's step."""
        return not self._in_backward.seen and not self._nested.seen and self._pending_outer is None

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
        """The number of backward passes that run now, nested or on several threads."""
        return sum(self._in_backward.running.values())

    def backward_began(self) -> None:
        self._in_backward.began()

    def backward_ended(self) -> None:
        """Ends a backward, which may be nested."""
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
    """Groups optimizers that step in backward: those first seen in the same backward belong together."""

    def __init__(self) -> None:
        self.seen = False
        self._groups: weakref.WeakKeyDictionary[torch.optim.Optimizer, _Group] = weakref.WeakKeyDictionary()
        self._pending: _Group | None = None
        self.running: dict[int, int] = {}  # running backward passes by thread: they may nest

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
        """Ends a backward; returns the group that has stepped, once no backward runs any more."""
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
    """A running step of an optimizer."""

    outer: object
    others_stepped: bool = False


class _Nested:
    """Finds optimizers that step others inside their own step, and when such a step begins and ends."""

    def __init__(self, began: Callable[[], None], ended: Callable[[object, bool], None], on_error: OnError) -> None:
        self._began = began
        self._ended = ended
        self._on_error = on_error
        self._patches: dict[type, FunctionPatch] = {}
        self._unpatchable: set[type] = set()  # classes whose objects step without the ``step`` of the class
        self._plain_sites: set[tuple[int, ...]] = set()  # places of steps outside of all others
        self._running: dict[int, list[_Step]] = {}  # by thread
        self._unseen = 0  # steps inside outer ones whose beginning was not seen

    @property
    def seen(self) -> bool:
        """Whether an optimizer has ever stepped others inside its own step."""
        return bool(self._patches or self._unpatchable)

    def is_inside(self) -> bool:
        """Returns whether an outer step runs, and counts the step that has just ended as part of it."""
        running = self._running.get(get_ident()) if self._running else None
        if running:
            running[0].others_stepped = True
        return bool(running)

    def outermost_of(self, optimizer: torch.optim.Optimizer) -> object | None:
        """Returns the outermost optimizer of a step whose beginning was not seen: ``optimizer`` itself if it is the
        outermost; None if the outer one was returned before.
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
        """Returns whether this is the first inner step of its outer one; patches the ``step`` of the outer class."""
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
    """Returns the optimizer whose ``step`` is the outermost on this thread, if any runs."""
    found, frame = None, sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "step" and code.co_argcount and (one := _first_argument(frame)) is not None:
            found = one
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _first_argument(frame: Any) -> Any:
    """Returns the first argument of the frame's function if it is an optimizer."""
    given = frame.f_locals
    one = given.get(frame.f_code.co_varnames[0])
    if type(given) is dict:  # a copy, until Python 3.13: it would keep the values alive while the frame runs
        given.clear()
    return one if _is_optimizer(one) else None


def _is_optimizer(one: Any) -> bool:
    """Returns whether it is a torch optimizer, or has the interface of one."""
    kind = type(one)
    if isinstance(one, nn.Module) or not hasattr(kind, "step"):
        return False
    return isinstance(one, torch.optim.Optimizer) or (
        hasattr(kind, "zero_grad") and (hasattr(kind, "param_groups") or "param_groups" in getattr(one, "__dict__", ()))
    )


def _class_with_step(outer: object) -> type | None:
    """Returns the class whose ``step`` this object calls; None if the class cannot be patched for it."""
    kind = type(outer)
    owner = next((one for one in kind.__mro__ if "step" in vars(one)), None)
    if owner is None or "step" in vars(outer) or not kind.__weakrefoffset__:
        return None
    return owner if isinstance(vars(owner)["step"], FunctionType) else None
