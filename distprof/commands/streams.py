"""stdout and stderr of a command: if they are closed or full, its work and its exit code stay the same."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from distprof.console import say
from distprof.errors import DataError

_REFUSED = "stdout does not take what is printed"


def hold() -> None:
    """Replaces standard streams that are closed.

    Otherwise the next files that are opened would get their numbers, and the text for these streams.  Child processes
    still find the streams closed.  Writing to a closed stdout fails, because nobody reads it.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free number; closed in children
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def put(text: str) -> bool:
    """Prints ``text`` unchanged, in any encoding.  Returns False if the reader has closed the pipe (``| head``).

    Raises DataError if stdout cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return False
    except OSError as error:
        _discard(sys.stdout)
        raise DataError(f"{_REFUSED}: {error.strerror}") from None
    return True


def settle(code: int) -> int:
    """Flushes the streams and returns the exit code, which is not 0 if stdout cannot be written."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _discard(sys.stdout)
    except OSError as error:
        failed = refused(error)
        code = code or failed
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)
    return code


def refused(error: OSError) -> int:
    """Reports that stdout cannot be written, and returns the exit code for that."""
    _discard(sys.stdout)
    say(f"{_REFUSED}: {error.strerror}")
    return DataError.exit_code


def _discard(stream: TextIO) -> None:
    """Discards the text in a stream's buffer, so that Python does not try to write it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno(), inheritable=False)
        os.close(nowhere)
        stream.flush()
