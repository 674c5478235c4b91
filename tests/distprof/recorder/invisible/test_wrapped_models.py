"""Tests that recording changes nothing in a model that is wrapped or compiled, also in the middle of the window."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.same_results import Model, Trace, assert_same, train
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore


class Changing:
    """Calls a model, and from call number ``at`` on the result of ``wrap`` on the model."""

    def __init__(self, model: nn.Module, at: int, wrap: Callable[[nn.Module], Callable[..., Tensor]]) -> None:
        self.net: Callable[..., Tensor] = model
        self.model, self.at, self.wrap, self.calls = model, at, wrap, 0

    def __call__(self, x: Tensor) -> Tensor:
        if self.calls == self.at:
            self.net = self.wrap(self.model)
        self.calls += 1
        return self.net(x)


def test_wrapping_in_ddp_in_mid_window(tmp_path: Path) -> None:
    def job() -> Trace:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        try:
            model = Model()
            return train(Changing(model, 3, nn.parallel.DistributedDataParallel), model)
        finally:
            gc.collect()
            dist.destroy_process_group()

    assert_same(tmp_path, job)


def test_wrapping_in_fsdp(tmp_path: Path) -> None:
    def job() -> Trace:
        from torch.distributed.fsdp import fully_shard

        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        try:
            model = Model()
            for block in model.blocks:
                fully_shard(block)
            fully_shard(model)
            return train(model, model)
        finally:
            gc.collect()
            dist.destroy_process_group()

    assert_same(tmp_path, job)


def _whole(model: nn.Module) -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(model, backend="aot_eager")
    return compiled


def _in_place(model: nn.Module) -> Callable[..., Tensor]:
    model.compile(backend="aot_eager")
    return model


def _regional(model: nn.Module) -> Callable[..., Tensor]:
    for block in model.blocks:  # type: ignore[union-attr]
        block.compile(backend="aot_eager")
    return model


class _Calling(nn.Module):
    """A model whose forward is one compiled function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.function = torch.compile(model.forward, backend="aot_eager", fullgraph=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.function(x)
        return output


@pytest.mark.parametrize("form", [_whole, _in_place, _regional, _Calling])
@pytest.mark.parametrize("compiled_at", [0, 1, 3], ids=["before", "in the counted step", "in a timed step"])
def test_compiled_code(tmp_path: Path, form: Callable[[nn.Module], Callable[..., Tensor]], compiled_at: int) -> None:
    """The same graphs, graph breaks and losses, whenever the model is compiled."""

    def job() -> Trace:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = Model(blocks=2 if form is _regional else 1)  # compiling takes the time of these tests
        model.drop.p = 0.0
        trace = train(Changing(model, compiled_at, form), model)
        counters = torch._dynamo.utils.counters
        return [*trace, dict(counters["stats"]), dict(counters["graph_break"])]

    assert_same(tmp_path, job)


@pytest.mark.parametrize("form", [_whole, _in_place, _regional, _Calling])
@pytest.mark.parametrize("longer", [1, 2], ids=["in the counted step", "in a timed step"])
def test_a_new_shape_in_compiled_code(
    tmp_path: Path, form: Callable[[nn.Module], Callable[..., Tensor]], longer: int
) -> None:
    def job() -> Trace:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = Model(blocks=2 if form is _regional else 1)  # compiling takes the time of these tests
        model.drop.p = 0.0
        trace = train(form(model), model, longer=longer)
        counters = torch._dynamo.utils.counters
        return [*trace, dict(counters["stats"]), dict(counters["graph_break"])]

    assert_same(tmp_path, job)
