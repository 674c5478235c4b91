"""stdout and stderr of a command: closed, full or gone, they cost neither its work nor its exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from distprof.console import say
from distprof.errors import DataError

_REFUSED = "stdout does not take what is printed"


def hold() -> None:
    """Put something in the place of standard streams that are closed.

    Whatever were opened next would have their numbers otherwise, and get what others write to them: it is what a child
    starts with (it finds them closed, as we did) that stays.  To write to stdout fails, since nobody would read it.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest that is free; closed in children
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def put(text: str) -> bool:
    """Print ``text`` as it is, in any encoding; False where a reader has seen enough (``| head``).

    Raises DataError where stdout does not take it.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go(sys.stdout)
        return False
    except OSError as error:
        _let_go(sys.stdout)
        raise DataError(f"{_REFUSED}: {error.strerror}") from None
    return True


def settle(code: int) -> int:
    """The exit code, once all that was printed has gone where it should; not 0 where stdout did not take it."""
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _let_go(sys.stdout)
    except OSError as error:
        failed = refused(error)
        code = code or failed
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _let_go(sys.stderr)
    return code


def refused(error: OSError) -> int:
    """The exit code where stdout did not take what was printed, which is said."""
    _let_go(sys.stdout)
    say(f"{_REFUSED}: {error.strerror}")
    return DataError.exit_code


def _let_go(stream: TextIO) -> None:
    """What it still holds goes nowhere, so that Python does not try once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno(), inheritable=False)
        os.close(nowhere)
        stream.flush()
