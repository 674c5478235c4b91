"""The one way to speak to the user outside a report: a line on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


def say(sentence: str) -> None:
    """``distprof: sentence`` on stderr, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not _is_a_file_of_the_script(sys.stderr):
            print(f"distprof: {sentence}", file=sys.stderr, flush=True)


def _is_a_file_of_the_script(stream: Any) -> bool:
    """Whether the number of stderr was free, and is now that of a file which the script opened for itself: standard
    streams are inherited, what Python opens is not.
    """
    try:
        number: int = stream.fileno()
    except (OSError, ValueError, AttributeError):  # no file: a notebook's, a test's
        return False
    return number <= 2 and not os.get_inheritable(number)
