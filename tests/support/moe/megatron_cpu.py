"""Lets Megatron-core's MoE layers run where there is no CUDA: streams do nothing, and the device is the CPU."""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any

import torch


class _NoStream:
    """The stream that all work of a CPU is on; an event of it has always happened."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NoStream)

    def __hash__(self) -> int:
        return 0

    def wait_stream(self, other: _NoStream) -> None:
        return

    def record_event(self) -> _NoStream:
        return self

    def synchronize(self) -> None:
        return


def _on_host(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
    return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor


def without_cuda() -> None:
    """Changes torch and Megatron-core in this process; call it before the first part of Megatron-core is imported."""
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    cuda.Stream = cuda.current_stream = _NoStream
    cuda.stream = lambda stream: nullcontext()
    utils: Any = importlib.import_module("megatron.core.transformer.moe.moe_utils")
    if not hasattr(utils, "te_general_gemm"):
        utils.te_general_gemm = None  # 0.16 reads it also without Transformer Engine
    dispatcher: Any = importlib.import_module("megatron.core.transformer.moe.token_dispatcher")
    utils.maybe_move_tensor_to_cpu = dispatcher.maybe_move_tensor_to_cpu = _on_host
