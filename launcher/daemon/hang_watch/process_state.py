"""What the system tells of a process: its state, its processor time, and where it waits in the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessState:
    state: str  # of the first thread: R, S, D, T, Z
    cpu_s: float  # of all threads
    kernel_function: str  # in which the first thread waits; empty where the system does not tell


def process_state(pid: int) -> ProcessState | None:
    """Returns the state of a process; None if it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state, cpu_s = fields[0].decode("ascii", "replace"), (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, ValueError, IndexError):
        return None
    return ProcessState(state, cpu_s, _waits_in(pid))


def _waits_in(pid: int) -> str:
    try:
        found = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return "" if found == "0" else found[:100]
