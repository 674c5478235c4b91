"""Megatron-core: parallel state, tensor-parallel and expert parameters, layer numbers and MoE layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from distprof.frameworks.protocol import Experts, Framework, ParameterLayout, Routing
from distprof.frameworks.routing_readers import read_counts
from distprof.tensors.device_counts import made
from distprof.topology.imported import group_ranks, imported

_STATE = "megatron.core.parallel_state"
_EXPERTS = ("SequentialMLP", "GroupedMLP", "TEGroupedMLP")
#: Variables are read instead of getters, which raise while their groups do not exist; other versions may lack some.
_VARIABLES = {
    "tp": "_TENSOR_MODEL_PARALLEL_GROUP",
    "pp": "_PIPELINE_MODEL_PARALLEL_GROUP",
    "cp": "_CONTEXT_PARALLEL_GROUP",
    "dp": "_DATA_PARALLEL_GROUP",
    "ep": "_EXPERT_MODEL_PARALLEL_GROUP",
    "etp": "_EXPERT_TENSOR_PARALLEL_GROUP",
    "edp": "_EXPERT_DATA_PARALLEL_GROUP",
}


class Megatron(Framework):
    """Megatron-core's parallel state, and its layers: sizes are those that its groups have, not those of its config."""

    name = "megatron"
    package = _STATE

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        found = {axis: group_ranks(imported(_STATE, name)) for axis, name in _VARIABLES.items()}
        return {axis: ranks for axis, ranks in found.items() if ranks}

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> ParameterLayout | None:
        numel, copy = parameter.numel(), _embedding_copy(parameter)
        # Experts have this mark even if every rank has whole ones: the size of their own group decides.
        axis = "etp" if expert else "tp"
        is_cut = getattr(parameter, "tensor_model_parallel", False)
        ways = len(group_ranks(imported(_STATE, _VARIABLES[axis]))) if is_cut else 1
        if ways > 1 or copy:
            return ParameterLayout(numel, numel, numel * max(ways, 1), (axis,) if ways > 1 else (), (), copy)
        return None

    def experts(self, module: nn.Module) -> Experts | None:
        held: Any = getattr(module, "experts", None)
        if type(held).__name__ not in _EXPERTS or not _is_megatron_module(held):
            return None
        local = int(held.num_local_experts)
        ways = max(1, len(group_ranks(imported(_STATE, _VARIABLES["ep"]))))
        modules, router = tuple(getattr(held, "local_experts", ())), getattr(module, "router", None)
        config = getattr(held, "config", None)
        padded = bool(getattr(config, "moe_pad_expert_input_to_capacity", False))
        factor = float(getattr(config, "moe_expert_capacity_factor", None) or 0)
        top_k = int(getattr(router, "topk", 0) or 0)
        return Experts(
            num_experts=local * ways,
            modules=modules,
            holder=None if modules else held,
            local=local,
            top_k=top_k,
            padded=padded,
            router=router,
            read_router=partial(
                _read_map, top_k=top_k, padded=padded, weights=_weights_of_losses(router), factor=factor
            ),
            read_processed=None if modules else read_counts,
        )

    def child_name(self, parent: nn.Module, name: str, child: nn.Module) -> str:
        number = getattr(child, "layer_number", None)
        is_layer = name.isdecimal() and type(number) is int and number > 0 and _is_megatron_module(child)
        return str(number - 1) if is_layer and type(number) is int else name


def _read_map(
    output: Any, num_experts: int, *, top_k: int, padded: bool, weights: tuple[float, ...], factor: float = 0.0
) -> Routing | None:
    """Reads a ``TopKRouter``'s output: (probabilities, map [tokens, experts]).

    The map shows what is left after drops: of each token ``top_k`` choices less those.  If ``padded``, it also has
    tokens that fill an expert's capacity without being chosen: their probability is 0.  The auxiliary losses are in the
    graph of the probabilities; each counts with one of ``weights``.  ``factor`` is that of the capacity, 0 without one.
    """
    routing_map = output[1] if isinstance(output, tuple) and len(output) == 2 else None
    if not isinstance(routing_map, Tensor) or routing_map.shape[-1] != num_experts:
        return None
    chosen = torch.logical_and(routing_map, output[0]) if padded else routing_map
    kept = made(chosen.reshape(-1, num_experts).sum(0))
    choices = top_k * (routing_map.numel() // num_experts)
    capacity = ceil(choices / num_experts * factor)
    return Routing(kept, kept, _aux_loss(output[0], weights), choices=choices, capacity=capacity)


def _weights_of_losses(router: Any) -> tuple[float, ...]:
    """Returns for each of a router's auxiliary losses, in the order of their computation, what makes it the one that
    Megatron-core logs: that without coefficient, of all ranks that share a batch.  Empty where they are not read.
    """
    coefficient = getattr(router, "get_aux_loss_coeff", None)
    if coefficient is None or getattr(router, "calculate_per_token_loss", False) or coefficient("global_aux_loss") > 0:
        return ()
    ranks = max(1, len(group_ranks(getattr(router, "tp_cp_group", None))))
    each = [coefficient(kind) for kind in ("aux_loss", "seq_aux_loss")]
    return tuple(ranks / one for one in each if one > 0)


def _aux_loss(probabilities: Tensor, weights: Sequence[float]) -> Tensor | None:
    """Returns the sum of the auxiliary losses that are attached to the probabilities; None if not all are seen.

    Nothing is read where hooks pack what autograd saves: unpacking would recompute a checkpointed region.
    """
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if not weights or hooks is None or hooks(True) is not None:
        return None
    node: Any = probabilities.grad_fn
    found: list[Tensor] = []
    while type(node).__name__ == "MoEAuxLossAutoScalerBackward":
        found.append(node.saved_tensors[0].detach())
        node = node.next_functions[0][0]
    if len(found) != len(weights):
        return None
    total = found[0] * weights[-1]  # a tensor of the weights would be copied to the device, which waits
    for loss, weight in zip(found[1:], weights[-2::-1], strict=True):
        total = torch.add(total, loss, alpha=weight)
    return made(total)


def _is_megatron_module(module: object) -> bool:
    return type(module).__module__.partition(".")[0] == "megatron"


def _embedding_copy(parameter: nn.Parameter) -> str:
    """Names the word embeddings, of which first and last stage hold copies under different names; else empty."""
    is_copy = getattr(parameter, "shared_embedding", False) or getattr(parameter, "shared", False)
    return "word_embeddings" if is_copy else ""
