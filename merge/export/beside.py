"""Makes one file of a large report in a process of its own, while this one makes the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from threading import active_count

from distprof.merge.processors import usable_processors

#: Makes the content of a file.
Maker = Callable[[], bytes]


def made_beside(make: Maker) -> Maker:
    """Begins to make a content in a forked process, and returns what waits for it.

    The content is made here, when it is asked for, where no process can be forked, or the forked one fails.
    """
    if sys.platform != "linux" or usable_processors() < 2 or active_count() > 1:
        return make
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)  # so that the process ends with this one, instead of waiting for its own end of the pipe
        _make_and_end(make, writing)
    os.close(writing)

    def wait() -> bytes:
        with os.fdopen(reading, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(child, 0)
        return make() if status else content

    return wait


def _make_and_end(make: Maker, writing: int) -> None:
    status = 1
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(make())
        status = 0
    finally:
        os._exit(status)  # nothing of the process that was forked is closed or written twice
