"""Recognizes exceptions that were raised from outside while distprof's code ran: these must reach the script.

Python raises an exception of a signal handler (a script's timeout, Ctrl-C), or one that was sent to a thread by
``PyThreadState_SetAsyncExc``, at whatever line is running then.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from opcode import opname
from types import CodeType, FrameType, TracebackType
from typing import Any

#: Exceptions that C code raises without a message.
_WITHOUT_MESSAGE = (StopIteration, StopAsyncIteration, MemoryError, EOFError)
_OWN_PACKAGES = frozenset({"distprof", "torch", "numpy", "msgpack", *sys.stdlib_module_names})


def came_from_outside(error: BaseException) -> bool:
    """Whether ``error`` was raised from outside while distprof's code ran.

    False when in doubt, except for KeyboardInterrupt and other exceptions that are not an ``Exception``.
    """
    if not isinstance(error, Exception):
        return True
    entries = list(_traceback_entries(error.__traceback__))
    return _is_from_handler(entries) or (bool(entries) and _was_sent(error, entries[-1]))


def pass_on(error: BaseException) -> None:
    """Raises ``error`` again if it came from outside."""
    if came_from_outside(error):
        raise error


class OwnSuppressed:
    """Suppresses each Exception of distprof's own code, and lets those from outside pass."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        return error is not None and not came_from_outside(error)


def _traceback_entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_from_handler(entries: list[TracebackType]) -> bool:
    frames = [entry.tb_frame for entry in entries]
    if any(_is_handler_frame(frame) for frame in frames):
        return True
    codes = {_handler_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in codes for frame in frames)


def _is_handler_frame(frame: FrameType) -> bool:
    """Whether the frame was called as a signal handler is: with a number and the frame that it interrupts."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 1]
    given: list[Any] = []
    for name in names:
        value = frame.f_locals.get(name)
        given += value if isinstance(value, tuple) else (value,)
    pairs = itertools.pairwise(given)
    return any(isinstance(number, int) and there is frame.f_back is not None for number, there in pairs)


def _handler_code(handler: Any) -> CodeType | None:
    """Returns the code of a handler, below the layers of a partial, a method or a callable object."""
    for _ in range(10):
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            return code
        handler = getattr(handler, "func", None) or getattr(handler, "__func__", None) or _call_method(handler)
        if handler is None:
            return None
    return None


def _call_method(handler: Any) -> Any:
    return getattr(type(handler), "__call__", None) if callable(handler) else None  # noqa: B004  the class's own attribute


def _was_sent(error: Exception, last: TracebackType) -> bool:
    """Whether the exception was sent to the thread: nothing in its first frame raised it.

    That is, no raise statement did, and no C code, which gives a message and knows no class of the script.
    """
    if opname[last.tb_frame.f_code.co_code[last.tb_lasti]] in ("RAISE_VARARGS", "RERAISE"):
        return False
    if type(error).__module__.partition(".")[0] not in _OWN_PACKAGES:
        return True
    return not error.args and not isinstance(error, _WITHOUT_MESSAGE)
