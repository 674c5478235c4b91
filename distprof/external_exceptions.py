"""Exceptions that come from outside while our code runs, and are none of its own: they have to reach the script.

Python raises at whatever line runs just then what a handler of a signal raises (a script's timeouts, Ctrl-C), and what
was sent to a thread by ``PyThreadState_SetAsyncExc``.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from opcode import opname
from types import CodeType, FrameType, TracebackType
from typing import Any

#: Those that C code raises without a word.
_WORDLESS = (StopIteration, StopAsyncIteration, MemoryError, EOFError)
_OURS = frozenset({"distprof", "torch", "numpy", "msgpack", *sys.stdlib_module_names})


def came_from_outside(error: BaseException) -> bool:
    """Whether our code was only what ran when it came.  False when in doubt, but for KeyboardInterrupt and its like."""
    if not isinstance(error, Exception):
        return True
    entries = list(_entries(error.__traceback__))
    return _by_a_handler(entries) or (bool(entries) and _was_sent(error, entries[-1]))


def pass_on(error: BaseException) -> None:
    """Raises it where it came from outside."""
    if came_from_outside(error):
        raise error


class OwnSuppressed:
    """``contextlib.suppress(Exception)`` for what is our code's own."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        return error is not None and not came_from_outside(error)


def _entries(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _by_a_handler(entries: list[TracebackType]) -> bool:
    frames = [entry.tb_frame for entry in entries]
    if any(_is_handlers(frame) for frame in frames):
        return True
    codes = {_code(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    return any(frame.f_code in codes for frame in frames)


def _is_handlers(frame: FrameType) -> bool:
    """Whether it was called as a handler is, with a number and the frame that it interrupts."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 1]
    given: list[Any] = []
    for name in names:
        value = frame.f_locals.get(name)
        given += value if isinstance(value, tuple) else (value,)
    pairs = itertools.pairwise(given)
    return any(isinstance(number, int) and there is frame.f_back is not None for number, there in pairs)


def _code(handler: Any) -> CodeType | None:
    """Of what is called, below the layers of a partial, a method or an object."""
    for _ in range(10):
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            return code
        handler = getattr(handler, "func", None) or getattr(handler, "__func__", None) or _call_of(handler)
        if handler is None:
            return None
    return None


def _call_of(handler: Any) -> Any:
    return getattr(type(handler), "__call__", None) if callable(handler) else None  # noqa: B004  the class's, as it is


def _was_sent(error: Exception, last: TracebackType) -> bool:
    """Whether nothing in the frame where it began has raised it: no statement, and no C code, which says why it raises,
    and knows no class of the script's.
    """
    if opname[last.tb_frame.f_code.co_code[last.tb_lasti]] in ("RAISE_VARARGS", "RERAISE"):
        return False
    if type(error).__module__.partition(".")[0] not in _OURS:
        return True
    return not error.args and not isinstance(error, _WORDLESS)
