"""Pushes and removes distprof's dispatch mode while the script's own code runs.

torch keeps a stack of modes for each thread, and leaving a mode pops the top of the stack.  So distprof's mode lies
below all modes of the script: leaving one of these pops exactly that mode, whenever it was entered.

A call of compiled code restores, as it ends, torch's state at its begin, and with it whether any modes are on.  So
inside such a call no earlier mode may be removed, and no mode pushed that is to stay; and a thread cannot reach the
stack of another.  A mode that cannot be removed for such a reason becomes inactive, and is removed at the next
opportunity.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_length = torch._C._len_torch_dispatch_stack
_at: Any = torch._C._get_dispatch_stack_at
_push: Any = torch._C._push_on_torch_dispatch_stack
_pop: Any = torch._C._pop_torch_dispatch_stack


def push_below_user_modes(mode: TorchDispatchMode) -> None:
    """Pushes a mode on this thread, below all modes that were entered; torch's own modes stay below it."""
    _replace([mode, *_pushed()])


def remove_mode(mode: TorchDispatchMode) -> bool:
    """Removes a mode from this thread's stack; returns False if it is not there."""
    pushed = _pushed()
    kept = [one for one in pushed if one is not mode]
    if len(kept) == len(pushed):
        return False
    _replace(kept)
    return True


def in_compiled_call() -> bool:
    """Returns whether this thread is inside a call of compiled code, for example in a hook of a compiled optimizer."""
    if "torch._dynamo.eval_frame" not in sys.modules:
        return False
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "compile_wrapper":
        frame = frame.f_back
    return frame is not None


_abandoned: list[TorchDispatchMode] = []  # of all threads


def abandon_mode(mode: TorchDispatchMode) -> None:
    """Leaves the removal of a mode to :func:`drop_abandoned_modes`."""
    _abandoned.append(mode)


def drop_abandoned_modes() -> None:
    """Removes abandoned modes from this thread's stack, unless compiled code runs."""
    if _abandoned and not in_compiled_call():
        _abandoned[:] = [mode for mode in _abandoned if not remove_mode(mode)]


def _pushed() -> list[TorchDispatchMode]:
    """Returns the modes from the bottom up, without those that torch stores separately (for fake tensors)."""
    modes = [_at(place) for place in range(_length())]
    return [mode for mode in modes if getattr(mode, "_mode_key", None) is None]


def _replace(modes: list[TorchDispatchMode]) -> None:
    interruption: BaseException | None = None
    while [*map(id, _pushed())] != [*map(id, modes)]:
        try:
            for _ in _pushed():
                _pop(None)
            for mode in modes:
                _push(mode)
        except BaseException as error:  # from outside (a signal): some of the script's modes are off now
            interruption = error
    if interruption is not None:
        raise interruption
