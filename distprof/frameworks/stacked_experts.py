"""Experts that one module computes together, with stacked weights of shape ``(experts, ..., ...)``."""

from __future__ import annotations

from torch import nn

from distprof.frameworks.dtensor_shards import dtensor_layout
from distprof.frameworks.protocol import Experts
from distprof.frameworks.routing_readers import read_chosen_ids, read_dispatched_ids
from distprof.topology.imported import is_a


def stacked_experts(holder: nn.Module, top_k: int = 0, router: nn.Module | None = None) -> Experts | None:
    """Returns the experts of a module with "expert" in its class name and stacked weights; None for another module.

    Its arguments are all tokens of this rank, whichever rank hosts their experts, and each token's expert ids.
    """
    if "expert" not in type(holder).__name__.lower():
        return None
    stacked = [parameter for parameter in holder._parameters.values() if parameter is not None and parameter.dim() > 2]
    sizes = {(parameter.shape[0], local_length(parameter)) for parameter in stacked}
    if len(sizes) != 1:
        return None
    ((whole, local),) = sizes
    declared = getattr(holder, "num_experts", 0)
    is_distributed = (
        type(declared) is int and declared > whole and declared % whole == 0
    )  # distributed by the script itself: the weights are local
    return Experts(
        declared if is_distributed else whole, (), holder, local, top_k=top_k,
        router=router, read_router=read_chosen_ids, read_handed=read_dispatched_ids,
    )  # fmt: skip


def local_length(parameter: nn.Parameter) -> int:
    """Returns the size of dimension 0 on this rank, without data-parallel sharding."""
    if not is_a(parameter, "torch.distributed.tensor", "DTensor") or not parameter.numel():
        return int(parameter.shape[0])
    return dtensor_layout(parameter).rank_numel * int(parameter.shape[0]) // parameter.numel()
