"""A dispatch mode that stays on while the script's own code runs, and that no mode of the script's is taken for.

Torch keeps modes on a stack for each thread, and whoever leaves one pops what lies on top.  So ours lies below all
modes of the script's: each of theirs that is left, whenever it was entered, is popped itself.

A call of compiled code puts back, as it ends, what it found of torch's state as it began, and so whether there are any
modes.  Inside of one a mode must not go that was on before, nor one come that is to stay; and no thread reaches the
stack of another.  A mode that must stay for such a reason does nothing more, and is taken out at the next occasion.
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
    """On this thread, below all modes that anybody has entered; those of torch's own lie lower still."""
    _replace([mode, *_pushed()])


def remove_mode(mode: TorchDispatchMode) -> bool:
    """From wherever it lies; False where it does not, on this thread."""
    pushed = _pushed()
    kept = [one for one in pushed if one is not mode]
    if len(kept) == len(pushed):
        return False
    _replace(kept)
    return True


def in_compiled_call() -> bool:
    """Whether this thread is inside of a call of compiled code: in a hook of a compiled optimizer, say."""
    if "torch._dynamo.eval_frame" not in sys.modules:
        return False
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "compile_wrapper":
        frame = frame.f_back
    return frame is not None


_stranded: list[TorchDispatchMode] = []  # of all threads


def abandon_mode(mode: TorchDispatchMode) -> None:
    """To be taken out by :func:`drop_abandoned_modes`."""
    _stranded.append(mode)


def drop_abandoned_modes() -> None:
    """Take out the modes that lie on this thread's stack for want of an occasion, if this is one."""
    if _stranded and not in_compiled_call():
        _stranded[:] = [mode for mode in _stranded if not remove_mode(mode)]


def _pushed() -> list[TorchDispatchMode]:
    """From the bottom up, without those that torch keeps in places of their own (of fake tensors, say)."""
    modes = [_at(place) for place in range(_length())]
    return [mode for mode in modes if getattr(mode, "_mode_key", None) is None]


def _replace(modes: list[TorchDispatchMode]) -> None:
    came: BaseException | None = None
    while [*map(id, _pushed())] != [*map(id, modes)]:
        try:
            for _ in _pushed():
                _pop(None)
            for mode in modes:
                _push(mode)
        except BaseException as error:  # from outside: some of the script's own modes are off now
            came = error
    if came is not None:
        raise came
