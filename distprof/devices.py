"""The device that a model runs on, and what it calls itself: the name by which its peak is looked up.  Does not import
torch.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from distprof.external_exceptions import OwnSuppressed

_CPUINFO = Path("/proc/cpuinfo")


def running_device(tensors: Iterable[Any], modules: Iterable[Any]) -> Any:
    """Of a model with these parameters and modules; None where neither tells.  One that accelerate has offloaded lies
    on the meta device, or elsewhere, and its hooks know where it runs.
    """
    first = next((tensor.device for tensor in tensors), None)
    for module in modules:
        hook = vars(module).get("_hf_hook")
        for one in (hook, *getattr(hook, "hooks", ())):
            told = getattr(one, "execution_device", None)
            if told is not None and getattr(one, "offload", False):
                return sys.modules["torch"].device(told)
    return first


def device_name(device: Any) -> str:
    """The name of a torch.device (None: the CPU), as its driver gives it: ``NVIDIA H100 80GB HBM3``; empty if it has
    none.
    """
    if device is None or device.type == "cpu":
        return cpu_name()
    with OwnSuppressed():  # a backend without names, or without the device
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
