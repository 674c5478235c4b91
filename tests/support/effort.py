"""How much a recorder does, in lines of its own code that run: unlike seconds, the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import distprof

_OURS = str(Path(distprof.__file__).parent)


class Lines:
    """Run so far, in distprof."""

    def __init__(self) -> None:
        self.run = 0

    def trace(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        self.run += event == "line"
        return self.trace


@contextmanager
def lines() -> Iterator[Lines]:
    """Counts those of what runs inside, on this thread."""
    counted, before = Lines(), sys.gettrace()
    sys.settrace(counted.trace)
    try:
        yield counted
    finally:
        sys.settrace(before)
