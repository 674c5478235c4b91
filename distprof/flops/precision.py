"""On which device and in which arithmetic multiply-accumulates run: what their peak depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from distprof.devices import device_name
from distprof.flops.attention_recompute import recomputed_macs
from distprof.flops.formulas.rule import tensors
from distprof.records import DeviceWork

_SHORT = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_FIRST_WITH_TF32 = (8, 0)  # compute capability of Ampere


class DevicePrecision(NamedTuple):
    """``arithmetic`` as in :class:`~distprof.records.DeviceWork`."""

    device: torch.device | None
    arithmetic: str


class MacTally:
    """Multiply-accumulates of one counted step, by place: the model's own, and all that ran."""

    def __init__(self) -> None:
        self._model: dict[DevicePrecision, int] = {}
        self._executed: dict[DevicePrecision, int] = {}

    def add(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, macs: int, *, of_model: bool
    ) -> None:
        """A call of ``func`` ran ``macs``.  ``of_model``: in a forward or its backward, not again by a checkpoint."""
        place = device_precision(func, args, kwargs, result)
        self._executed[place] = self._executed.get(place, 0) + macs
        if of_model:
            own = macs - recomputed_macs(func, macs, args, kwargs)
            self._model[place] = self._model.get(place, 0) + own

    def take(self, other: MacTally, *, of_model: bool) -> None:
        """Add what ``other`` holds; ``of_model``: of it, what is there the model's own."""
        for mine, its in ((self._executed, other._executed), (self._model, other._model if of_model else {})):
            for place, macs in its.items():
                mine[place] = mine.get(place, 0) + macs

    def records(self) -> tuple[DeviceWork, ...]:
        return tuple(
            DeviceWork(
                device=str(place.device or ""),
                name=device_name(place.device) if place.device else "",
                threads=torch.get_num_threads() if place.device and place.device.type == "cpu" else 0,
                arithmetic=place.arithmetic,
                model_macs=self._model.get(place, 0),
                executed_macs=macs,
            )
            for place, macs in sorted(self._executed.items(), key=str)
        )


def device_precision(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> DevicePrecision:
    """Of an op that multiplies matrices: all its operands are of one type, or the first one's is that of its products
    (weights that are packed in few bits come second).
    """
    tensor = next(tensors((*args, *kwargs.values(), result)), None)
    if tensor is None:
        return DevicePrecision(None, "")
    return DevicePrecision(tensor.device, _arithmetic(func, tensor))


def _arithmetic(func: Any, tensor: torch.Tensor) -> str:
    dtype = tensor.dtype
    if dtype == torch.float32 and tensor.device.type == "cuda" and _in_tf32(str(func), tensor.device):
        return "tf32"
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(dtype) or ("fp8" if name.startswith("float8_") else name)


def _in_tf32(op: str, device: torch.device) -> bool:
    """Whether torch lets the op's kernel round fp32 operands to TF32, and the device can."""
    if torch.version.hip:  # AMD's library asks for its own leave, too, and convolutions never do it
        return "conv" not in op and os.environ.get("HIPBLASLT_ALLOW_TF32") == "1" and _allowed("matmul")
    kind = "conv" if "conv" in op else "rnn" if "rnn" in op else "matmul"
    return _has_tf32(device) and _allowed(kind)


@cache
def _has_tf32(device: torch.device) -> bool:
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(device) >= _FIRST_WITH_TF32


def _allowed(kind: str) -> bool:
    """torch's setting now.  The older flag raises where the newer one was set, so the newer one goes first."""
    setting: Any = torch.backends.cuda.matmul if kind == "matmul" else getattr(torch.backends.cudnn, kind, None)
    precision = getattr(setting, "fp32_precision", None)
    if precision is not None:
        return bool(precision == "tf32")
    older: Any = torch.backends.cuda.matmul if kind == "matmul" else torch.backends.cudnn
    return bool(older.allow_tf32)
