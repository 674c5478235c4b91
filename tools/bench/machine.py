"""What the numbers were measured on, and how busy it was."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path


def described() -> str:
    """One paragraph; says so where the machine had other work to do."""
    cores = os.cpu_count() or 1
    parts = (
        f"{_processor()}, {cores} cores",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"torch {version('torch')}",
        f"numpy {version('numpy')}",
    )
    load = os.getloadavg()[0]
    speed = f" Ten million additions in Python took {_additions_s():.1f} s there before this began."
    busy = f" The machine was busy with other things: its load was {load:.1f} before this began." if load > 0.5 else ""
    return f"On {', '.join(parts)}.{speed}{busy}"


def _additions_s() -> float:
    """A measure of the machine's speed, which neighbours change: to compare pages by."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
