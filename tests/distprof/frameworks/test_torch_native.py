"""Layouts of DTensors, on one rank of a fake world."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.worlds import rank_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from distprof.frameworks.protocol import ParameterLayout
from distprof.frameworks.registry import FrameworkRegistry
from distprof.model.owned_parameters import OwnedParameters


def layout(parameter: nn.Parameter | torch.Tensor) -> ParameterLayout:
    return FrameworkRegistry().layout(nn.Module(), "weight", parameter)


def test_plain_parameter() -> None:
    assert layout(nn.Linear(6, 4).weight) == ParameterLayout(24, 24, 24)


def test_tensor_parallel_layout() -> None:
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        weight = distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])
        assert layout(weight) == ParameterLayout(12, 12, 48, ("tp",))
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Replicate()])) == ParameterLayout(48, 48, 48)


def test_data_parallel_layout() -> None:
    """Under FSDP a rank computes with whole parameters, although it keeps only a part in memory."""
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("dp_shard",))
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])) == ParameterLayout(12, 48, 48, ("dp",))


@pytest.mark.parametrize("names", [None, ("rows",)])
def test_cut_along_an_unnamed_dimension(names: Any) -> None:
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=names)
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])) == ParameterLayout(12, 12, 48, ("tp",))
        sharded = nn.Sequential(nn.Linear(6, 8, bias=False))
        fully_shard(sharded, mesh=mesh)
        (owned,) = OwnedParameters(sharded).owned_by(sharded[0])
        assert owned.layout(FrameworkRegistry(), "weight") == ParameterLayout(12, 48, 48, ("dp",))


@pytest.mark.parametrize(("rank", "rows"), [(0, 3), (2, 3), (3, 1)])
def test_unequal_chunks(rank: int, rows: int) -> None:
    """torch.chunk cuts 10 rows over 4 ranks into 3, 3, 3, 1."""
    with rank_of(4, rank):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        weight = distribute_tensor(torch.zeros(10, 6), mesh, [Shard(0)])
        assert layout(weight) == ParameterLayout(weight.to_local().numel(), 6 * rows, 60, ("tp",))
        assert weight.to_local().numel() == 6 * rows


def test_empty_chunk() -> None:
    with rank_of(4, rank=3):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        assert layout(distribute_tensor(torch.zeros(3, 5), mesh, [Shard(0)])) == ParameterLayout(0, 0, 15, ("tp",))


def test_data_and_tensor_parallel_layout() -> None:
    with rank_of(8, rank=5):
        mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        weight = distribute_tensor(torch.zeros(8, 16), mesh, [Shard(0), Shard(1)])
        assert layout(weight) == ParameterLayout(8 * 16 // 8, 8 * 16 // 4, 8 * 16, ("dp", "tp"))


def test_model_under_fsdp_and_tensor_parallel() -> None:
    """In a user's model, local sizes are an eighth, and a rank's sizes without FSDP a quarter."""
    with rank_of(8, rank=5):
        mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.ReLU(), nn.Linear(32, 16, bias=False))
        parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=mesh["dp"])
        whole = 16 * 32
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        assert [layout(parameter) for parameter in model.parameters()] == [
            ParameterLayout(whole // 8, whole // 4, whole, ("dp", "tp"))
        ] * 2
