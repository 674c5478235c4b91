"""Megatron-core on four ranks: tensor, expert and data parallel groups, and layers that are split over them."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2]))
without_cuda: Any = importlib.import_module("support.moe.megatron_cpu").without_cuda
without_cuda()
state: Any = importlib.import_module("megatron.core.parallel_state")
layers: Any = importlib.import_module("megatron.core.tensor_parallel")
configs: Any = importlib.import_module("megatron.core.model_parallel_config")
transformer: Any = importlib.import_module("megatron.core.transformer.transformer_config")
moe_specs: Any = importlib.import_module("megatron.core.models.gpt.moe_module_specs")
utils: Any = importlib.import_module("megatron.core.transformer.moe.moe_utils")
specs: Any = importlib.import_module("megatron.core.transformer.spec_utils")

WIDTH = 8
STEPS = 3  # one is counted, in the second the ranks settle, and the third is used


class Layer(nn.Module):
    """Numbered over the whole model, as Megatron's transformer layers are."""

    def __init__(self, number: int, config: Any) -> None:
        super().__init__()
        self.layer_number = number
        how = {"config": config, "init_method": nn.init.ones_}
        self.up = layers.ColumnParallelLinear(WIDTH, 4 * WIDTH, **how)
        self.down = layers.RowParallelLinear(
            4 * WIDTH, WIDTH, bias=True, input_is_parallel=True, skip_bias_add=False, **how
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.relu(self.up(x)[0]))[0]
        return y


Layer.__module__ = "megatron.core.transformer.transformer_layer"  # a layer of Megatron's own needs CUDA


class Stage(nn.Module):
    """One of two stages, with two layers numbered from 0."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        first = 2 * state.get_pipeline_model_parallel_rank() + 1
        self.layers = nn.ModuleList(Layer(first + i, config) for i in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def tp_pp() -> int:
    state.initialize_model_parallel(tensor_model_parallel_size=2, pipeline_model_parallel_size=2)
    config = configs.ModelParallelConfig(
        tensor_model_parallel_size=2,
        pipeline_model_parallel_size=2,
        pipeline_dtype=torch.float32,
        use_cpu_initialization=True,
    )
    model = Stage(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        model(torch.ones(3, 2, WIDTH)).sum().backward()
        optimizer.step()
    return 4 * (2 * 4 * WIDTH * WIDTH + 4 * WIDTH + WIDTH)


def ep() -> int:
    state.initialize_model_parallel(
        tensor_model_parallel_size=2, expert_model_parallel_size=2, expert_tensor_parallel_size=1
    )
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        model(torch.ones(2, WIDTH)).sum().backward()
        optimizer.step()
    return WIDTH * WIDTH + WIDTH


EXPERTS, TOP_K, TOKENS = 4, 2, 24


class Sparse(nn.Module):
    """A MoE layer of Megatron's own after a Linear."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        spec = moe_specs.get_moe_module_spec(use_te=False, num_experts=EXPERTS, moe_grouped_gemm=False)
        self.first, self.moe = nn.Linear(WIDTH, WIDTH), specs.build_module(spec, config=config, layer_number=1)
        self.moe.set_layer_number(1)  # of its router, which logs its losses under it

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.moe(self.first(x))[0]
        return y


def moe(capacity: float | None, dispatcher: str, *, padded: bool = False) -> tuple[int, dict[str, Any]]:
    """Distributes four experts over ep 2, and returns by expert, over all ranks: choices before drops, by the router's
    own weights, and the tokens that experts are handed by their dispatcher; where these have padding, the choices up to
    the capacity.
    """
    state.initialize_model_parallel(expert_model_parallel_size=2)
    config = transformer.TransformerConfig(
        num_layers=1,
        hidden_size=WIDTH,
        ffn_hidden_size=2 * WIDTH,
        num_attention_heads=2,
        num_moe_experts=EXPERTS,
        moe_router_topk=TOP_K,
        moe_aux_loss_coeff=0.01,
        moe_token_dispatcher_type=dispatcher,
        moe_expert_capacity_factor=capacity,
        moe_pad_expert_input_to_capacity=padded,
        expert_model_parallel_size=2,
        add_bias_linear=False,
        use_cpu_initialization=True,
    )
    model = Sparse(config)
    routed, processed = torch.zeros(EXPERTS, dtype=torch.int64), torch.zeros(EXPERTS, dtype=torch.int64)
    dispatch = model.moe.token_dispatcher.dispatch_postprocess

    def seen(*args: Any) -> Any:
        found = dispatch(*args)
        processed.zero_()[model.moe.local_expert_indices] = found[1].long()
        return found

    model.moe.token_dispatcher.dispatch_postprocess = seen
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    torch.manual_seed(dist.get_rank())
    x = torch.randn(TOKENS, 1, WIDTH)
    for _ in range(STEPS):
        model(x).sum().backward()
        optimizer.step()
    with torch.no_grad():
        logits = model.first(x).view(-1, WIDTH) @ model.moe.router.weight.t()
        routed += torch.bincount(logits.topk(TOP_K).indices.flatten(), minlength=EXPERTS)
    if padded and capacity:
        processed = routed.clamp(max=math.ceil(TOKENS * TOP_K / EXPERTS * capacity))
    aux = utils.get_moe_layer_wise_logging_tracker()["load_balancing_loss"]["values"] / STEPS
    utils.clear_aux_losses_tracker()
    for one in (routed, processed, aux):
        dist.all_reduce(one)
    truth = {"routed": routed.tolist(), "processed": processed.tolist(), "aux": aux.item() / dist.get_world_size()}
    return WIDTH * WIDTH + WIDTH + EXPERTS * WIDTH + EXPERTS * 2 * WIDTH * 2 * WIDTH, truth


def destroy_groups() -> None:
    state.destroy_model_parallel()
    dist.destroy_process_group()


SCENARIOS: dict[str, Callable[[], Any]] = {
    "tp_pp": tp_pp,
    "ep": ep,
    "moe": partial(moe, None, "alltoall"),
    "moe_capacity": partial(moe, 0.75, "alltoall"),
    "moe_padded": partial(moe, 0.75, "alltoall", padded=True),
    "moe_gathered": partial(moe, None, "allgather"),
}
