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


def listening_ports(pid: int) -> list[int]:
    """Returns the TCP ports on which a process listens."""
    own = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                found.append(int(words[1].rpartition(":")[2], 16))
    return found


def resident_kilobytes(pid: int) -> int:
    """Returns the memory that a process holds, by the kernel."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (found,) = (int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return found
