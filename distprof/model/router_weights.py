"""The weight by which a compiled graph that has the router of a MoE layer is known: it is an input of the graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from distprof.frameworks.moe_names import is_router_name
from distprof.module_walk import every_module

#: Returns the weight that the router has now; None where it is gone.
ReadWeight = Callable[[], Tensor | None]


def router_weight(layer: nn.Module, router: nn.Module | None, num_experts: int) -> ReadWeight | None:
    """Returns a reader of a router's weight, which keeps no module alive; None without one.  Without a ``router``, the
    weight is the layer's own.
    """
    for module in (layer,) if router is None else every_module(router):
        for name, weight in module._parameters.items():
            named = router is not None or is_router_name(name.removesuffix("_weight"))
            if weight is not None and named and weight.dim() == 2 and num_experts in weight.shape:
                return partial(_read, weakref.ref(module), name)
    return None


def _read(owner: weakref.ref[nn.Module], name: str) -> Tensor | None:
    module = owner()
    return None if module is None else module._parameters.get(name)
