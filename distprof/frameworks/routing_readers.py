"""Reading where a MoE layer's tokens go, from what routers return and from what experts are handed.

Tensors are looked at while the call runs: none is kept, none is changed, and no device is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from distprof.frameworks.protocol import Routing
from distprof.topology.imported import is_a

#: No token sees more experts: a tensor of integers whose last dimension is longer says something else.
_MAX_TOP_K = 16
_INTEGERS = (torch.int64, torch.int32, torch.int16)


def count_by_expert(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    """How often each expert is in ``ids``, of any shape; what is no expert's id (a dropped token) is left out."""
    slots = ids.reshape(-1).long().add(1).clamp_(0, num_experts + 1)
    if slots.device.type == "cpu":
        return torch.bincount(slots, minlength=num_experts + 2)[1:-1]
    # There, bincount would wait for the device.
    found = torch.zeros(num_experts + 2, dtype=torch.int64, device=slots.device)
    return found.scatter_add_(0, slots, torch.ones_like(slots))[1:-1]


def read_chosen_ids(output: Any, num_experts: int) -> Routing | None:
    """A router that returns, alone or beside other things, each token's experts: integers, [..., k]."""
    ids = _ids(output, num_experts)
    return None if ids is None else Routing(count_by_expert(ids, num_experts))


def read_dispatched_ids(arguments: tuple[Any, ...], num_experts: int) -> torch.Tensor | None:
    """Experts that are handed, beside the tokens, each token's experts: integers, [..., k]."""
    ids = _ids(arguments, num_experts)
    return None if ids is None else count_by_expert(ids, num_experts)


def read_counts(arguments: tuple[Any, ...], local: int) -> torch.Tensor | None:
    """Experts that are handed tokens in their order, and how many each of them gets."""
    return next((tensor.long() for tensor in tensors(arguments) if tuple(tensor.shape) == (local,)), None)


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """The plain tensors in a call's values; of DTensors this rank's part, of other subclasses none."""
    for value in values if isinstance(values, (tuple, list)) else (values,):
        tensor = value._local_tensor if is_a(value, "torch.distributed.tensor", "DTensor") else value
        if type(tensor) is torch.Tensor:
            yield tensor


def is_router(name: str, module: nn.Module) -> bool:
    """Whether a MoE layer's child may be what chooses the experts.  A Linear is none: it returns scores alone."""
    called = type(module).__name__.lower()
    return not isinstance(module, nn.Linear) and (
        name in ("gate", "router") or called.endswith(("router", "gate", "gating"))
    )


def _ids(values: Any, num_experts: int) -> torch.Tensor | None:
    for tensor in tensors(values):
        width = tensor.shape[-1] if tensor.dim() > 1 else 0
        if tensor.dtype in _INTEGERS and 0 < width <= min(_MAX_TOP_K, num_experts):
            return tensor
    return None
