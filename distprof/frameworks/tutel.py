"""Tutel: its MoE layers, and the ranks over which one spreads its experts.

A layer computes its choices itself, from the scores of its gate.  It calls its experts with their whole capacity and
with itself, and has by then an attribute with how often each expert was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distprof.frameworks.protocol import Experts, Framework, Routing
from distprof.module_walk import every_module
from distprof.tensors.device_counts import copied, made
from distprof.topology.imported import group_ranks, is_a

_LAYERS = "tutel.impls.moe_layer"


class Tutel(Framework):
    """Tutel's ``moe_layer``, of as many ranks as each layer's own group has."""

    name = "tutel"
    package = _LAYERS

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        layers: list[Any] = [module for module in every_module(*models) if _is_layer(module)]
        found = (group_ranks(layer.group) for layer in layers if _ways(layer) > 1)
        return next(({"ep": ranks} for ranks in found if len(ranks) > 1), {})

    def experts(self, module: nn.Module) -> Experts | None:
        layer: Any = module
        # With more ranks than experts, each expert is cut over several.
        if not _is_layer(layer) or layer.sharded_count > 1:
            return None
        gates = list(layer.gates)
        stated = {int(getattr(gate, "top_k", 0)) for gate in gates}
        return Experts(
            num_experts=int(layer.num_global_experts),
            holder=layer.experts,
            local=int(layer.num_local_experts),
            top_k=stated.pop() if len(stated) == 1 else 0,
            padded=True,
            router=gates[0] if len(gates) == 1 else layer.gates,
            read_handed=_read_layer,
        )


def _is_layer(module: nn.Module) -> bool:
    return is_a(module, _LAYERS, "MOELayer")


def _ways(layer: Any) -> int:
    return int(layer.num_global_experts) // int(layer.num_local_experts)


def _read_layer(arguments: tuple[Any, ...], num_experts: int) -> Routing | None:
    """Reads the layer that its experts are called with, beside the slots of all experts or of the rank's own.

    A choice beyond the capacity is dropped.  Where slots are split in order to overlap, or choices are sorted by their
    importance, the attribute or the slots mean something else.
    """
    slots = next((value for value in arguments if isinstance(value, Tensor)), None)
    layer: Any = next((value for value in arguments if isinstance(value, nn.Module) and _is_layer(value)), None)
    counts = getattr(layer, "dispatch_count", None)
    if slots is None or type(counts) is not Tensor or tuple(counts.shape) != (num_experts,):
        return None
    if layer.batch_prioritized_routing or layer.a2a_ffn_overlap_degree > 1 or getattr(layer, "megablocks_size", 0):
        return None
    capacity = slots.shape[0] * slots.shape[1] // num_experts
    routed = copied(counts)
    return Routing(routed, made(routed.clamp(max=capacity)), capacity=capacity)
