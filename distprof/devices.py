"""What a device calls itself: the name by which its peak is looked up.  Does not import torch."""

from __future__ import annotations

import contextlib
import platform
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")


def device_name(device: Any) -> str:
    """The name of a torch.device (None: the CPU), as its driver gives it: ``NVIDIA H100 80GB HBM3``; empty if it has
    none.
    """
    if device is None or device.type == "cpu":
        return cpu_name()
    with contextlib.suppress(Exception):  # a backend without names, or without the device
        return str(getattr(sys.modules["torch"], device.type).get_device_name(device))
    return ""


@cache
def cpu_name() -> str:
    """The processor's model."""
    try:
        return _model(_CPUINFO.read_text(encoding="utf-8")) or _architecture()
    except OSError:
        return _architecture()


def _architecture() -> str:
    return platform.processor() or platform.machine()


def _model(cpuinfo: str) -> str:
    """``Intel(R) Xeon(R) Platinum 8480+``.  A virtual machine may hide all but the brand: then with family and model,
    which tell its generations apart.
    """
    said = dict(re.findall(r"^([\w ]+?)\s*: *(\S.*?) *$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    name = said.get("model name", "")
    hidden = name and not re.search(r"\d", name) and {"cpu family", "model"} <= said.keys()
    return f"{name} (family {said['cpu family']}, model {said['model']})" if hidden else name
