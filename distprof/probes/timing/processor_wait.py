"""How long the thread that trains was ready to run while no processor was free, as Linux counts it for each thread."""

from __future__ import annotations

import contextlib
import fcntl
import os
from threading import get_ident

_FILE = "/proc/thread-self/schedstat"
_LONGEST = 100
#: The lowest descriptor that is used: those below stay as a script finds them without distprof.
_FIRST_USED = 64


class ProcessorWait:
    """Reads the counter of the thread that called :meth:`open`, through one descriptor: opening the file again in each
    step takes ten times as long.

    A script may close descriptors that it does not know, and get their numbers for its own files.  What is read then is
    no counter, and the descriptor is closed only if it still belongs to the counter's file.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._file: tuple[int, int] | None = None
        self._thread = 0
        self._before: int | None = None
        self._ended: int | None = None  # where an iteration has just ended

    def open(self) -> None:
        self.close()
        self._ended = None
        with contextlib.suppress(OSError):
            below = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._fd = fcntl.fcntl(below, fcntl.F_DUPFD_CLOEXEC, _FIRST_USED)
                self._file = _identity(self._fd)
            finally:
                os.close(below)
        self._thread = get_ident()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                if _identity(fd) == self._file:
                    os.close(fd)

    def begin(self) -> None:
        """Begins an iteration; right after another one, where that has ended."""
        self._before = self._read() if self._ended is None else self._ended
        self._ended = None

    def waited_ns(self) -> int | None:
        """Returns the wait since :meth:`begin` in ns; None where it is not known."""
        self._ended = now = self._read() if self._before is not None else None
        return now - self._before if now is not None and self._before is not None and now >= self._before else None

    def _read(self) -> int | None:
        """Returns the ns of all waits so far; None on another thread, and where the kernel does not count them."""
        if self._fd < 0 or get_ident() != self._thread:
            return None
        try:
            return int(os.pread(self._fd, _LONGEST, 0).split()[1])  # time on a processor, time ready, turns
        except (OSError, ValueError, IndexError):
            return None


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
