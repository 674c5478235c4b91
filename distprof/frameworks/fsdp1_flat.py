"""Finds the parameters inside FSDP 1's flat parameters, which hold many end to end and are sharded over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from distprof.frameworks.protocol import ParameterLayout
from distprof.module_walk import every_module
from distprof.topology.imported import group_ranks, is_a


@dataclass(frozen=True)
class Flattened:
    """A parameter of the model inside a flat one.

    FSDP knows it as ``prime_name`` of the module ``prime``, which is another module if the parameter is tied.
    """

    name: str
    prime: nn.Module
    prime_name: str
    shape: tuple[int, ...]
    layout: ParameterLayout
    dtype: torch.dtype
    trainable: bool


def flat_parameters(model: nn.Module) -> dict[int, list[Flattened]]:
    """Maps the id of each owning module to its flattened parameters.  Empty without FSDP 1."""
    found: dict[int, list[Flattened]] = {}
    for handle in _handles(model):
        for owner, parameter in _flattened_in(handle):
            found.setdefault(id(owner), []).append(parameter)
    return found


def is_flat(parameter: nn.Parameter) -> bool:
    """Whether this is FSDP 1's flat parameter, not one of the model's own."""
    return bool(getattr(parameter, "_is_flat_param", False))


def _handles(model: nn.Module) -> Iterator[Any]:
    for module in every_module(model):
        wraps = is_a(module, "torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel")
        if wraps and getattr(module, "_handle", None) is not None:
            yield module._handle


def _flattened_in(handle: Any) -> Iterator[tuple[nn.Module, Flattened]]:
    flat = handle.flat_param
    sharded = ("dp",) if handle.uses_sharded_strategy and len(group_ranks(handle.process_group)) > 1 else ()
    trainable = [parameter.requires_grad for parameter in flat._params or ()] or [flat.requires_grad] * len(
        flat._shapes
    )
    own: dict[tuple[int, str], Flattened] = {}
    for info, shape, shard, needs in zip(
        flat._param_infos, flat._shapes, flat._shard_param_infos, trainable, strict=True
    ):
        whole = shape.numel()
        layout = ParameterLayout((shard.numel_in_shard or 0) if sharded else whole, whole, whole, sharded)
        found = Flattened(info.param_name, info.module, info.param_name, tuple(shape), layout, flat.dtype, needs)
        own[id(info.module), info.param_name] = found
        yield info.module, found
    for info in flat._shared_param_infos:
        yield info.module, replace(own[id(info.prim_module), info.prim_param_name], name=info.param_name)
