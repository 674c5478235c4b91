"""The one way to speak to the user outside a report: a line on stderr."""

from __future__ import annotations

import contextlib
import sys


def say(sentence: str) -> None:
    """``distprof: sentence`` on stderr, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"distprof: {sentence}", file=sys.stderr, flush=True)
