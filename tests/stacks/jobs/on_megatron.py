"""Megatron-core on four ranks: tensor, expert and data parallel groups, and layers that are split over them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
state: Any = importlib.import_module("megatron.core.parallel_state")
layers: Any = importlib.import_module("megatron.core.tensor_parallel")
configs: Any = importlib.import_module("megatron.core.model_parallel_config")

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


def destroy_groups() -> None:
    state.destroy_model_parallel()
    torch.distributed.destroy_process_group()


SCENARIOS: dict[str, Callable[[], int]] = {"tp_pp": tp_pp, "ep": ep}
