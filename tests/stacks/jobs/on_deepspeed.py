"""DeepSpeed on four ranks: ZeRO 1 to 3, a pipeline with tied layers, MoE layers, tensor parallel layers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

deepspeed: Any = importlib.import_module("deepspeed")
pipe: Any = importlib.import_module("deepspeed.pipe")
moe: Any = importlib.import_module("deepspeed.moe.layer")
moe_utils: Any = importlib.import_module("deepspeed.moe.utils")
importlib.import_module("torch._inductor.compile_fx")  # the first engine imports it: here, once for all ranks

WIDTH = 8
STEPS = 3  # one is counted, in the second the ranks settle, and the third is used


def config(stage: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 2,
        "optimizer": {"type": "Adam", "params": {"lr": 0.01, "torch_adam": True}},
        "zero_optimization": {"stage": stage},
        **more,
    }


def size(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 33), nn.ReLU(), nn.Linear(33, WIDTH))


def train(engine: Any) -> None:
    for _ in range(STEPS):
        engine.backward(engine(torch.ones(8, WIDTH)).sum())
        engine.step()


def zero(stage: int) -> int:
    model = nn.Sequential(mlp(), nn.Linear(WIDTH, 3))
    whole = size(model)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config(stage))
    train(engine)
    return whole


def head(embedding: nn.Embedding, x: Tensor) -> Tensor:
    return x @ embedding.weight.t()


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def pipeline() -> int:
    """Runs two stages of two replicas; the embedding is tied to the head on the other stage."""
    layers = [
        pipe.TiedLayerSpec("embedding", nn.Embedding, 16, WIDTH),
        *(pipe.LayerSpec(nn.Linear, WIDTH, WIDTH) for _ in range(3)),
        pipe.TiedLayerSpec("embedding", nn.Embedding, 16, WIDTH, forward_fn=head),
    ]
    deepspeed.init_distributed(dist_backend="gloo")
    model = pipe.PipelineModule(layers, num_stages=2, loss_fn=loss, partition_method="uniform")
    more = {"gradient_accumulation_steps": 2}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config(**more))
    batch = (torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))
    for _ in range(STEPS):
        engine.train_batch(iter([batch] * 2))
    return 16 * WIDTH + 3 * size(nn.Linear(WIDTH, WIDTH))


class WithExperts(nn.Module):
    """A MoE layer for each (ep_size, residual); the residual ones share one dense module."""

    def __init__(self, *layers: tuple[int, bool]) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        one = mlp()
        self.layers = nn.ModuleList(
            moe.MoE(WIDTH, expert=one, num_experts=4, ep_size=ep_size, k=1, use_residual=residual)
            for ep_size, residual in layers
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)[0]
        return x


def experts(*layers: tuple[int, bool], stage: int = 0) -> int:
    model = WithExperts(*layers)
    groups = moe_utils.split_params_into_different_moe_groups_for_optimizer(
        {"params": list(model.parameters()), "name": "all"}
    )
    engine, *_ = deepspeed.initialize(model=model, model_parameters=groups, config=config(stage))
    train(engine)
    residuals = sum(residual for _, residual in layers)
    dense = size(nn.Linear(WIDTH, WIDTH)) + (size(mlp()) if residuals else 0) + residuals * size(nn.Linear(WIDTH, 2))
    return dense + len(layers) * (WIDTH * 4 + 4 * size(mlp()))


class Attention(nn.Module):
    """A linear that AutoTP cuts by columns, and one that it cuts by rows."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.o_proj(self.q_proj(x))
        return y


def autotp() -> int:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Attention())
    whole = size(model)
    rules = {
        "autotp_size": 2,
        "partition_config": {
            "use_default_specs": False,
            "layer_specs": [
                {"patterns": [".*q_proj.weight$"], "partition_type": "column"},
                {"patterns": [".*o_proj.weight$"], "partition_type": "row"},
            ],
        },
    }
    more: dict[str, Any] = {"tensor_parallel": rules}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config(**more))
    train(engine)
    return whole


def destroy_groups() -> None:
    """Destroys all groups, DeepSpeed's own handle too, so that the next scenario can create new ones."""
    comm: Any = importlib.import_module("deepspeed.comm.comm")
    comm.destroy_process_group()
    comm.cdb = None


SCENARIOS: dict[str, Callable[[], int]] = {
    "zero1": partial(zero, 1),
    "zero2": partial(zero, 2),
    "zero3": partial(zero, 3),
    "pipeline": pipeline,
    "ep1": partial(experts, (1, False)),
    "ep2": partial(experts, (2, True)),
    "ep2_zero1": partial(experts, (2, True), stage=1),
    "autotp": autotp,
    "ep2_and_4": partial(experts, (2, True), (4, True)),
}
