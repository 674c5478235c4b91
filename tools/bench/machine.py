"""The machine on which the numbers were measured, and its load."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path


def described() -> str:
    """Returns one paragraph; it says if the machine had other work."""
    cores = os.cpu_count() or 1
    parts = (
        f"{_processor()}, {cores} cores",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"torch {version('torch')}",
        f"numpy {version('numpy')}",
    )
    load = os.getloadavg()[0]
    busy = f" The machine had other work: its load was {load:.1f} at the begin." if load > 0.5 else ""
    return f"On {', '.join(parts)}.{busy}"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
