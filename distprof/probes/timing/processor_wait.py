"""How long this thread was ready to run while no processor was free, as Linux counts it for each thread."""

from __future__ import annotations

import os

_FILE = "/proc/thread-self/schedstat"
_LONGEST = 100


def read_processor_wait() -> int | None:
    """Returns how many ns the calling thread has waited for a processor so far; None where that is not known."""
    try:
        file = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(file, _LONGEST).split()[1])  # time on a processor, time ready, turns
        finally:
            os.close(file)
    except (OSError, ValueError, IndexError):  # another system, or a kernel that does not count
        return None


def waited_since(before: int | None) -> int | None:
    """Returns the wait of the calling thread since it read ``before``; None where that is not known."""
    now = read_processor_wait() if before is not None else None
    return now - before if now is not None and before is not None and now >= before else None
