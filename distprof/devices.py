"""The device that a model runs on, and its name, by which its peak is looked up.  Does not import torch."""

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
    """Returns the device of a model with these parameters and modules, None if it is unknown.

    If accelerate has offloaded the model, its parameters are on the meta device or elsewhere, and its hooks have the
    device.
    """
    first = next((tensor.device for tensor in tensors), None)
    for module in modules:
        hook = vars(module).get("_hf_hook")
        for one in (hook, *getattr(hook, "hooks", ())):
            device = getattr(one, "execution_device", None)
            if device is not None and getattr(one, "offload", False):
                return sys.modules["torch"].device(device)
    return first


def device_name(device: Any) -> str:
    """Returns the driver's name of a torch.device (None: the CPU): ``NVIDIA H100 80GB HBM3``; empty without one."""
    if device is None or device.type == "cpu":
        return cpu_name()
    with OwnSuppressed():  # a backend without names, or without the device
        return str(getattr(sys.modules["torch"], device.type).get_device_name(device))
    return ""


def gpu_uuid(device: Any) -> str:
    """Returns the UUID of a torch.device as NVIDIA's tools write it, ``GPU-8c1b...``; empty where it is not known."""
    if device is None or device.type != "cuda":
        return ""
    with OwnSuppressed():  # a torch without it
        found = str(sys.modules["torch"].cuda.get_device_properties(device).uuid)
        return found if found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"
    return ""


@cache
def cpu_name() -> str:
    """Returns the model of the processor."""
    try:
        return _model(_CPUINFO.read_text(encoding="utf-8")) or _architecture()
    except OSError:
        return _architecture()


def _architecture() -> str:
    return platform.processor() or platform.machine()


def _model(cpuinfo: str) -> str:
    """Returns the model from ``/proc/cpuinfo``: ``Intel(R) Xeon(R) Platinum 8480+``.

    A virtual machine may show the brand only; family and model are then added, which identify the generation.
    """
    fields = dict(re.findall(r"^([\w ]+?)\s*: *(\S.*?) *$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    name = fields.get("model name", "")
    hidden = name and not re.search(r"\d", name) and {"cpu family", "model"} <= fields.keys()
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if hidden else name
