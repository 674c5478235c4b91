"""MoE layers of unknown stacks: experts that are the children of an ``nn.ModuleList``, or stacked in one module."""

from __future__ import annotations

from typing import Any

from torch import nn

from distprof.frameworks.protocol import Experts, Framework
from distprof.frameworks.routing_readers import is_router, read_chosen_ids
from distprof.frameworks.stacked_experts import stacked_experts

#: Attributes of a MoE module that may hold its global number of experts, the most trusted first.
_GLOBAL_COUNT = ("num_experts", "n_experts", "num_global_experts", "n_routed_experts", "num_routed_experts")
_ROUTERS = ("gate", "router", "wg")
_TOP_K = ("top_k", "topk", "num_experts_per_tok", "num_experts_per_token", "k")


class GenericMoe(Framework):
    name = "modules"
    package = "torch"

    def experts(self, module: nn.Module) -> Experts | None:
        for name, child in module._modules.items():
            if "expert" not in name.lower() or "shared" in name.lower():
                continue
            top_k, router = _top_k(module), _router(module)
            if isinstance(child, nn.ModuleList) and len({type(expert) for expert in child}) == 1:
                number = _num_experts(module, len(child))
                return Experts(number, tuple(child), top_k=top_k, router=router, read_router=read_chosen_ids)
            found = stacked_experts(child, top_k, router) if child is not None else None
            if found is not None:
                return found
        return None


def _router(layer: nn.Module) -> nn.Module | None:
    """Returns the child that chooses the experts, if there is one; children that return only scores do not count."""
    return next((child for name, child in layer.named_children() if is_router(name, child)), None)


def _num_experts(layer: nn.Module, local: int) -> int:
    """Returns the global number of experts by the layer, else by its router's width; 0 if neither is plausible."""
    candidates: list[Any] = [getattr(layer, name, None) for name in _GLOBAL_COUNT]
    candidates += [getattr(child, "out_features", None) for name, child in layer.named_modules() if _is_router(name)]
    return next((number for number in candidates if type(number) is int and number >= local and number % local == 0), 0)


def _top_k(layer: nn.Module) -> int:
    """Returns the number of experts a token, by the layer, else by its router; 0 if unknown."""
    routers = [child for name, child in layer.named_children() if _is_router(name)]
    candidates = [getattr(module, name, None) for module in (layer, *routers) for name in _TOP_K]
    return next((number for number in candidates if type(number) is int and number > 0), 0)


def _is_router(name: str) -> bool:
    return any(part in _ROUTERS for part in name.split("."))
