"""What the kernel tells of processes of this machine.  On Linux; elsewhere nothing is known of any but this one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def ancestors(pid: int) -> Iterator[int]:
    """Its parent, the parent's parent and so on, as far as they are known."""
    while (stat := _stat(pid)) is not None and (pid := int(stat[1])) > 0:
        yield pid


def environment(pid: int) -> dict[str, str] | None:
    """The variables that it was started with; None where we may not know them."""
    try:
        entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def is_python(pid: int) -> bool:
    """Whether a Python interpreter runs in it."""
    try:
        return (_PROC / str(pid) / "exe").readlink().name.startswith("python")
    except OSError:
        return False


def started_tick(pid: int) -> int | None:
    """When it was started, on the kernel's own clock: with its pid, its name; None for one unknown, or ended."""
    stat = _stat(pid)
    return None if stat is None or stat[0] in (b"Z", b"X") else int(stat[19])


def started_wall_ns(pid: int) -> int | None:
    """When it was started (ns since the epoch), about; None for one that is unknown, or has ended."""
    tick = started_tick(pid)
    if tick is None:
        return None
    since_boot = tick / os.sysconf("SC_CLK_TCK")
    return time.time_ns() - round((time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot) * 1e9)


def _stat(pid: int) -> list[bytes] | None:
    """The fields of its stat file from its state on: the name before them may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
