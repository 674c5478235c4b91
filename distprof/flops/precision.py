"""Tallies multiply-accumulates by device and arithmetic, on which their peak depends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from distprof.devices import device_name
from distprof.flops.attention_recompute import recomputed_macs
from distprof.records import DeviceWork
from distprof.tensors.nested_tensors import op_tensors

_SHORT = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_FIRST_WITH_TF32 = (8, 0)  # compute capability of Ampere


class DevicePrecision(NamedTuple):
    """A device and an arithmetic, which is named as in :class:`~distprof.records.DeviceWork`."""

    device: torch.device | None
    arithmetic: str


class MacTally:
    """Multiply-accumulates of one counted step, by device and arithmetic: the model's own, and all that ran."""

    def __init__(self) -> None:
        self._model: dict[DevicePrecision, int] = {}
        self._executed: dict[DevicePrecision, int] = {}

    def add(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, macs: int, *, of_model: bool
    ) -> None:
        """Adds ``macs`` of a call of ``func``.  ``of_model``: it ran in a forward or its backward, not as recompute."""
        key = device_precision(func, args, kwargs, result)
        self._executed[key] = self._executed.get(key, 0) + macs
        if of_model:
            own = macs - recomputed_macs(func, macs, args, kwargs)
            self._model[key] = self._model.get(key, 0) + own

    def add_tally(self, other: MacTally, *, of_model: bool) -> None:
        """Adds another tally; the model's own part of it counts as such only if ``of_model``."""
        for mine, its in ((self._executed, other._executed), (self._model, other._model if of_model else {})):
            for key, macs in its.items():
                mine[key] = mine.get(key, 0) + macs

    def records(self) -> tuple[DeviceWork, ...]:
        return tuple(
            DeviceWork(
                device=str(key.device or ""),
                name=device_name(key.device) if key.device else "",
                threads=torch.get_num_threads() if key.device and key.device.type == "cpu" else 0,
                arithmetic=key.arithmetic,
                model_macs=self._model.get(key, 0),
                executed_macs=macs,
            )
            for key, macs in sorted(self._executed.items(), key=str)
        )


def device_precision(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> DevicePrecision:
    """Returns the device and arithmetic of an op that multiplies matrices.

    Either all operands have one type, or the first one's type decides: weights packed in few bits come second.
    """
    tensor = next(op_tensors((*args, *kwargs.values(), result)), None)
    if tensor is None:
        return DevicePrecision(None, "")
    return DevicePrecision(tensor.device, _arithmetic(func, tensor))


def _arithmetic(func: Any, tensor: torch.Tensor) -> str:
    dtype = tensor.dtype
    if dtype == torch.float32 and tensor.device.type == "cuda" and _runs_in_tf32(str(func), tensor.device):
        return "tf32"
    return _SHORT.get(dtype) or _name(dtype)


def _name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return "fp8" if name.startswith("float8_") else name


def _runs_in_tf32(op: str, device: torch.device) -> bool:
    """Whether torch lets the op's kernel round fp32 operands to TF32, and the device can."""
    if torch.version.hip:  # AMD's library has its own setting beside torch's, and its convolutions never use TF32
        return "conv" not in op and os.environ.get("HIPBLASLT_ALLOW_TF32") == "1" and _is_tf32_allowed("matmul")
    kind = "conv" if "conv" in op else "rnn" if "rnn" in op else "matmul"
    return _has_tf32(device) and _is_tf32_allowed(kind)


@cache
def _has_tf32(device: torch.device) -> bool:
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= _FIRST_WITH_TF32


def _is_tf32_allowed(kind: str) -> bool:
    """Reads torch's present setting.  Reads the newer one first, as the older raises after the newer was set."""
    setting: Any = torch.backends.cuda.matmul if kind == "matmul" else getattr(torch.backends.cudnn, kind, None)
    precision = getattr(setting, "fp32_precision", None)
    if precision is not None:
        return bool(precision == "tf32")
    older: Any = torch.backends.cuda.matmul if kind == "matmul" else torch.backends.cudnn
    return bool(older.allow_tf32)
