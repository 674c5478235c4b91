"""Reads about processes of this machine from ``/proc``.  Without it (other systems), nothing is known about others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_MOST_BYTES = 4096  # of a file with one line of numbers


def ancestors(pid: int) -> Iterator[int]:
    """Yields the parent, the parent's parent and so on, as far as they are known."""
    while (stat := _stat(pid)) is not None and (pid := int(stat[1])) > 0:
        yield pid


def environment(pid: int) -> dict[str, str] | None:
    """Returns the variables that a process was started with; None where they cannot be read."""
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def is_python(pid: int) -> bool:
    """Whether the process is a Python interpreter."""
    try:
        return (_PROC / str(pid) / "exe").readlink().name.startswith("python")
    except OSError:
        return False


def resident_bytes(pid: int, tick: int) -> int | None:
    """Returns the memory that the process holds that began at ``tick``; None if that is unknown or it has ended."""
    stat = _living(pid)
    return None if stat is None or int(stat[19]) != tick else int(stat[21]) * os.sysconf("SC_PAGE_SIZE")


def started_tick(pid: int) -> int | None:
    """Returns the start of a process in the kernel's clock ticks; None if it is unknown or has ended.

    Together with the pid, it identifies the process.
    """
    stat = _living(pid)
    return None if stat is None else int(stat[19])


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process."""
    stat = _stat(pid)
    return stat is not None and stat[0] in (b"T", b"t")


def started_wall_ns(pid: int) -> int | None:
    """Returns the approximate start of a process (ns since the epoch); None if it is unknown or has ended."""
    tick = started_tick(pid)
    if tick is None:
        return None
    since_boot = tick / os.sysconf("SC_CLK_TCK")
    return time.time_ns() - round((time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot) * 1e9)


def _living(pid: int) -> list[bytes] | None:
    """Returns what :func:`_stat` does, but None for a process that has ended."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in (b"Z", b"X") else stat


def _stat(pid: int) -> list[bytes] | None:
    """Returns the fields of the stat file from the state on; the name before them may contain any character."""
    try:
        fd = os.open(f"{_PROC}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # a daemon does so again and again
        try:
            return os.read(fd, _MOST_BYTES).rpartition(b")")[2].split()
        finally:
            os.close(fd)
    except OSError:
        return None
