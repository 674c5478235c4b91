"""DeepSpeed: groups, the pipeline's grid, ZeRO-3's parameters, tensor-parallel layers and MoE layers.

DeepSpeed's getters create missing groups, so its variables are read instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from distprof.external_exceptions import pass_on
from distprof.frameworks.protocol import Experts, Framework, ParameterLayout, Routing
from distprof.frameworks.routing_readers import count_by_expert, read_choice
from distprof.module_walk import every_module
from distprof.tensors.device_counts import as_it_is, made
from distprof.topology.imported import group_ranks, imported, is_a

_GROUPS = "deepspeed.utils.groups"
_AXIS_OF_PIPELINE = {"pipe": "pp", "data": "dp", "model": "tp"}
#: AutoTP's groups.
_VARIABLES = {"tp": "_TENSOR_MODEL_PARALLEL_GROUP", "dp": "_DATA_PARALLEL_GROUP"}
#: By axis, the getters of a model-parallel unit (Megatron's, or a user's), the most exact first.
_GETTERS = {
    "tp": ("get_tensor_model_parallel_group", "get_slice_parallel_group", "get_model_parallel_group"),
    "pp": ("get_pipeline_model_parallel_group", "get_pipe_parallel_group"),
    "cp": ("get_context_parallel_group", "get_sequence_parallel_group"),
    "dp": ("get_data_parallel_group",),
}


class DeepSpeed(Framework):
    """DeepSpeed's engine: its groups, or the grid of a PipelineModule; ZeRO-3, AutoTP, MoE and AutoEP."""

    name = "deepspeed"
    package = "deepspeed"

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        modules = [*every_module(*models)]
        pipelines = [m for m in modules if is_a(m, "deepspeed.runtime.pipe.module", "PipelineModule")]
        dense = _pipeline_groups(pipelines[0], rank) if pipelines else _dense_groups(modules)
        return dense | _expert_groups()

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> ParameterLayout | None:
        whole = getattr(parameter, "ds_numel", None)
        sliced = ("tp",) if getattr(parameter, "tensor_model_parallel", False) and _is_replaced(parameter) else ()
        # A pipeline marks all its parameters, and builds a tied layer under the same name on each stage that uses it.
        copy = name if hasattr(parameter, "ds_pipe_replicated") and name.startswith("tied_modules.") else ""
        if whole is None and not (sliced or copy):
            return None
        # ZeRO-3 empties a parameter between its uses; the size and this rank's padded part are attributes of it.
        numel = parameter.numel() if whole is None else int(whole)
        local = getattr(parameter, "ds_tensor", parameter).numel()
        return ParameterLayout(local, numel, numel, ("dp",) if local < numel else (), sliced, copy)

    def experts(self, module: nn.Module) -> Experts | None:
        layer: Any = module
        if is_a(module, "deepspeed.moe.layer", "MoE"):
            residual = (layer.mlp,) if layer.use_residual else ()
            return replace(_moe_experts(layer.deepspeed_moe), shared=residual)
        if is_a(module, "deepspeed.moe.sharded_moe", "MOELayer"):
            return _moe_experts(layer)
        if getattr(module, "_is_autoep_layer", False):
            axis = _expert_axis(layer.ep_group_name)
            shared = tuple(m for m in (layer.shared_experts, layer.shared_experts_gate) if isinstance(m, nn.Module))
            return Experts(
                layer.num_experts, (), layer.experts, layer.num_local_experts, axis, layer.top_k, shared,
                router=layer.router, read_router=partial(_read_autoep, top_k=layer.top_k),
            )  # fmt: skip
        return None


def _moe_experts(layer: Any) -> Experts:
    """Describes a layer whose experts compute their whole capacity, padding too: only the gate knows the tokens."""
    held, local = tuple(getattr(layer.experts, "deepspeed_experts", ())), int(layer.num_local_experts)
    holder = None if held else layer.experts
    return Experts(
        layer.ep_size * local, held, holder, local, _expert_axis(layer.ep_group_name), layer.gate.k,
        padded=True, router=layer.gate, read_router=_read_gate,
    )  # fmt: skip


def _read_gate(output: Any, num_experts: int) -> Routing | None:
    """Reads a ``TopKGate``'s output: the loss comes first, the counts last.

    Between them are the capacity and the expert ids, -1 where dropped (7 items), or a mask [tokens, experts, capacity]
    (4 items: before 0.19, and on request).
    """
    if not isinstance(output, tuple) or len(output) not in (4, 7):
        return None
    if len(output) == 7:
        kept, capacity = count_by_expert(output[3], num_experts), output[1]
    else:
        kept, capacity = made(output[2].sum((0, 2))), output[2].shape[2]
    routed, aux_loss = as_it_is(output[-1]), as_it_is(output[0])
    if isinstance(capacity, Tensor):
        capacity = as_it_is(capacity)
    uncopied = tuple(one for one in (routed, aux_loss, capacity) if isinstance(one, Tensor))
    return Routing(routed, kept, aux_loss, capacity=capacity, uncopied=uncopied)


def _read_autoep(output: Any, num_experts: int, *, top_k: int) -> Routing | None:
    """Reads AutoEP's router, which drops nothing; the counts that its experts get are padded."""
    seen = read_choice(output, num_experts, top_k=top_k)
    return None if seen is None else Routing(seen.routed, seen.routed)


def _pipeline_groups(pipeline: Any, rank: int) -> dict[str, Sequence[int]]:
    topology = pipeline._topo
    own = topology.get_coord(rank)._asdict()
    return {
        _AXIS_OF_PIPELINE[name]: [topology.get_rank(**(own | {name: i})) for i in range(topology.get_dim(name))]
        for name in topology.get_axis_names()
        if name in _AXIS_OF_PIPELINE
    }


def _dense_groups(modules: Sequence[nn.Module]) -> dict[str, Sequence[int]]:
    """Returns AutoTP's groups, else those of the script's model-parallel unit, else data parallel over all ranks."""
    engine: Any = next((m for m in modules if is_a(m, "deepspeed.runtime.engine", "DeepSpeedEngine")), None)
    unit = getattr(engine, "mpu", None) or imported(_GROUPS, "mpu")
    axes = {axis: group_ranks(imported(_GROUPS, name)) for axis, name in _VARIABLES.items()}
    for axis, getters in _GETTERS.items() if unit is not None and getattr(unit, "__name__", "") != _GROUPS else ():
        axes[axis] = axes.get(axis) or group_ranks(_call_first(unit, getters))
    if engine is not None and not axes["dp"] and not axes.get("cp"):
        axes["dp"] = group_ranks(getattr(engine, "data_parallel_group", None))
    return {axis: ranks for axis, ranks in axes.items() if ranks}


def _expert_groups() -> dict[str, Sequence[int]]:
    """Returns ``ep_size_N`` for each N, the largest as ``ep``, and the ranks with the same experts as ``edp``."""
    sizes = {name: group_ranks(group) for name, group in (imported(_GROUPS, "_EXPERT_PARALLEL_GROUP") or {}).items()}
    if not any(sizes.values()):
        return {}
    largest = max(sizes, key=lambda name: len(sizes[name]))
    replicas = (imported(_GROUPS, "_EXPERT_DATA_PARALLEL_GROUP") or {}).get(largest)
    named = {name: ranks for name, ranks in sizes.items() if len(ranks) > 1}
    return {**named, "ep": sizes[largest], "edp": group_ranks(replicas) or ()}


def _expert_axis(group_name: Any) -> str:
    """Returns the axis over which the experts of this group differ: plain ``ep`` if a group is one rank."""
    size = str(group_name).rpartition("_")[2]
    return str(group_name) if size.isdecimal() and int(size) > 1 else "ep"


def _is_replaced(parameter: Any) -> bool:
    return bool(getattr(parameter, "ds_is_replaced_module", False))


def _call_first(unit: Any, getters: Sequence[str]) -> Any:
    """Calls the first getter that exists; None if it raises, because its groups do not exist yet."""
    getter = next((getattr(unit, name) for name in getters if hasattr(unit, name)), None)
    try:
        return getter() if getter is not None else None
    except Exception as error:
        pass_on(error)
        return None
