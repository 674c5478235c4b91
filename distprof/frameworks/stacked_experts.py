"""Experts that one module computes together, their weights stacked: ``(experts, ..., ...)``."""

from __future__ import annotations

from torch import nn

from distprof.frameworks.dtensor_shards import of_dtensor
from distprof.frameworks.protocol import Experts
from distprof.frameworks.routing_readers import read_chosen_ids, read_dispatched_ids
from distprof.topology.imported import is_a


def stacked_experts(holder: nn.Module, top_k: int = 0, router: nn.Module | None = None) -> Experts | None:
    """The experts of a module that is called so and holds stacked weights; None when it is none such.  It is handed the
    tokens of this rank, wherever their experts are, and the experts of each.
    """
    if "expert" not in type(holder).__name__.lower():
        return None
    stacked = [parameter for parameter in holder._parameters.values() if parameter is not None and parameter.dim() > 2]
    sizes = {(parameter.shape[0], local_length(parameter)) for parameter in stacked}
    if len(sizes) != 1:
        return None
    ((whole, local),) = sizes
    said = getattr(holder, "num_experts", 0)
    more = type(said) is int and said > whole and said % whole == 0  # shared out by hand: the weights are local
    return Experts(
        said if more else whole, (), holder, local, top_k=top_k,
        router=router, read_router=read_chosen_ids, read_handed=read_dispatched_ids,
    )  # fmt: skip


def local_length(parameter: nn.Parameter) -> int:
    """Of dimension 0 on this rank, data-parallel sharding undone."""
    if not is_a(parameter, "torch.distributed.tensor", "DTensor") or not parameter.numel():
        return int(parameter.shape[0])
    return of_dtensor(parameter).rank_numel * int(parameter.shape[0]) // parameter.numel()
