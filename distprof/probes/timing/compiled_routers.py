"""What routers in compiled code choose, where a graph returns it: backward needs the ids of the chosen experts.

A graph has a layer's router if its weight is among the graph's inputs.  Each such layer has one topk of its k and its
number of experts, and that depends on its weight; it may also depend on those of the layers before.  Where this leaves
one order only, the ids that the graph returns are read; else the layer's tokens are n/a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import get_ident
from typing import Any

import torch

from distprof.model.module_tree import rows_inside
from distprof.model.moe_layers import MoeLayer
from distprof.probes.compiled.topk_calls import TopK, topk_calls
from distprof.probes.protocol import Region
from distprof.probes.timing.module_timer import ModuleTimer

#: (number of a layer, its k, its number of experts, the place of its router's weight among a graph's inputs)
_Router = tuple[int, int, int, int]


class CompiledRouters:
    """Reads the runs of compiled graphs in forward, on the thread that trains."""

    def __init__(self, layers: Sequence[MoeLayer], timer: ModuleTimer) -> None:
        self._timer = timer
        self._layers = [(number, layer) for number, layer in enumerate(layers) if layer.router_weight is not None]
        self._below: dict[int, range] = {}  # the rows of a module and those below it

    def graph_begins(self, region: Region, source: str, inputs: Sequence[Any]) -> Mapping[int, int] | None:
        """Returns the place of the chosen ids among the graph's outputs, by layer; -1 where it does not show them."""
        timer = self._timer
        if not self._layers or get_ident() != timer.running.thread or timer.abandoned:
            return None
        is_forward = not timer.in_backward and not timer.running.in_evaluation and not region.updates
        if not is_forward or (region.inference and not timer.stack):
            return None
        routers = self._routers_in(inputs)
        return output_of_layers(source, routers) if routers else None

    def graph_returned(self, token: Mapping[int, int], outputs: Any) -> None:
        for number, place in token.items():
            ids = outputs[place] if place >= 0 and isinstance(outputs, (list, tuple)) else None
            self._timer.experts.add_compiled(number, ids if isinstance(ids, torch.Tensor) else None)

    def _routers_in(self, inputs: Sequence[Any]) -> tuple[_Router, ...]:
        places = {id(value): place for place, value in enumerate(inputs) if isinstance(value, torch.Tensor)}
        found = []
        for number, layer in self._layers:
            if self._may_run(layer) and layer.router_weight is not None:
                place = places.get(id(layer.router_weight()))
                if place is not None:
                    found.append((number, layer.top_k, layer.num_experts, place))
        return tuple(found)

    def _may_run(self, layer: MoeLayer) -> bool:
        """Whether the running module has the layer, or is in it; a router that is called itself is read there."""
        stack = self._timer.stack
        if not stack:
            return True
        below = self._below.get(stack[-1])
        if below is None:
            rows = self._timer.running.listener.tree.rows
            below = self._below[stack[-1]] = range(stack[-1], rows_inside(stack[-1], rows).stop)
        if layer.row in below:
            return True
        return layer.row in stack and (layer.read_router is None or layer.router not in stack)


@lru_cache(maxsize=4096)
def output_of_layers(source: str, routers: tuple[_Router, ...]) -> Mapping[int, int]:
    """Returns the place of each layer's ids among the outputs of a graph; -1 where this is not certain."""
    found = {number: -1 for number, *_ in routers}
    for kind in {(k, experts) for _, k, experts, _ in routers}:
        weights = {number: place for number, k, experts, place in routers if (k, experts) == kind}
        calls = [call for call in topk_calls(source) if (call.k, call.of) == kind]
        found |= _only_order(calls, weights)
    return found


def _only_order(calls: list[TopK], weights: dict[int, int]) -> dict[int, int]:
    """Gives each layer its call: again and again there has to be a call that depends on the weight of only one layer
    that has none yet.
    """
    if len(calls) != len(weights):
        return {}
    found: dict[int, int] = {}
    left = [*calls]
    while left:
        for call in left:
            own = [number for number, place in weights.items() if place in call.inputs and number not in found]
            if len(own) == 1:
                found[own[0]] = call.output
                left.remove(call)
                break
        else:
            return {}
    return found
