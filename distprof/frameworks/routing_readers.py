"""Reads the experts of a MoE layer's tokens, from a router's output or from the experts' arguments.

Readers run during the call: they keep no tensor, change none, and wait for no device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from distprof.frameworks.protocol import Routing
from distprof.topology.imported import is_a

#: A token has at most so many experts: a tensor of integers with a longer last dimension means something else.
_MAX_TOP_K = 16
_INTEGERS = (torch.int64, torch.int32, torch.int16)


def count_by_expert(ids: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Counts each expert in ``ids``, of any shape; other numbers (of dropped tokens) are left out."""
    slots = ids.reshape(-1).long().add(1).clamp_(0, num_experts + 1)
    if slots.device.type == "cpu":
        return torch.bincount(slots, minlength=num_experts + 2)[1:-1]
    # On other devices bincount would wait for the device.
    found = torch.zeros(num_experts + 2, dtype=torch.int64, device=slots.device)
    return found.scatter_add_(0, slots, torch.ones_like(slots))[1:-1]


def read_chosen_ids(output: Any, num_experts: int) -> Routing | None:
    """Reads a router whose output is, or includes, each token's expert ids: integers, [..., k]."""
    ids = _expert_ids(output, num_experts)
    return None if ids is None else Routing(count_by_expert(ids, num_experts))


def read_dispatched_ids(arguments: tuple[Any, ...], num_experts: int) -> torch.Tensor | None:
    """Reads experts whose arguments include each token's expert ids: integers, [..., k]."""
    ids = _expert_ids(arguments, num_experts)
    return None if ids is None else count_by_expert(ids, num_experts)


def read_counts(arguments: tuple[Any, ...], local: int) -> torch.Tensor | None:
    """Reads experts whose arguments include the number of tokens of each local expert: integers, [local]."""
    return next((tensor.long() for tensor in plain_tensors(arguments) if tuple(tensor.shape) == (local,)), None)


def plain_tensors(values: Any) -> Iterator[torch.Tensor]:
    """Yields the plain tensors among a call's values, and the local parts of DTensors, but no other subclasses."""
    for value in values if isinstance(values, (tuple, list)) else (values,):
        tensor = value._local_tensor if is_a(value, "torch.distributed.tensor", "DTensor") else value
        if type(tensor) is torch.Tensor:
            yield tensor


def is_router(name: str, module: nn.Module) -> bool:
    """Whether a MoE layer's child may choose the experts.  A Linear does not: it returns only scores."""
    called = type(module).__name__.lower()
    return not isinstance(module, nn.Linear) and (
        name in ("gate", "router") or called.endswith(("router", "gate", "gating"))
    )


def _expert_ids(values: Any, num_experts: int) -> torch.Tensor | None:
    for tensor in plain_tensors(values):
        width = tensor.shape[-1] if tensor.dim() > 1 else 0
        if tensor.dtype in _INTEGERS and 0 < width <= min(_MAX_TOP_K, num_experts):
            return tensor
    return None
