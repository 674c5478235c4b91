"""Finds the daemons of a run among all processes."""

from __future__ import annotations

import os
from pathlib import Path


def daemon_pids(run: Path) -> list[int]:
    """Returns the daemons of a run that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        if len(words) > 3 and b"distprof.launcher.daemon.main" in words[2] and words[3] == os.fsencode(run):
            found.append(int(entry.name))
    return found


def resident_kilobytes(pid: int) -> int:
    """Returns the memory that a process holds, by the kernel."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (found,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return found
