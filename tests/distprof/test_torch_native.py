"""Device meshes as a script makes them, and the layout of parameters, on one rank of a world that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.worlds import rank_of
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from distprof.frameworks.torch_native import Layout, MeshWatch, layout


@pytest.fixture
def watch() -> Iterator[MeshWatch]:
    watch = MeshWatch()
    watch.open()
    yield watch
    watch.close()


def test_a_mesh_is_seen_as_it_is_made(watch: MeshWatch) -> None:
    with rank_of(8, rank=6):
        init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
    (mesh,) = watch.seen
    assert (mesh.names, mesh.shape, mesh.coordinate) == (("dp", "tp"), (2, 4), (1, 2))


def test_every_way_to_make_one_is_seen_and_slices_are_too(watch: MeshWatch) -> None:
    with rank_of(8, rank=6):
        mesh = DeviceMesh("cpu", torch.arange(8).view(2, 4), mesh_dim_names=("pp", "dp"))
        assert mesh["dp"].size() == 4
    assert watch.seen[0].names == ("pp", "dp")
    assert all(seen.names in (("pp", "dp"), ("dp",), ("pp",)) for seen in watch.seen)


def test_a_mesh_without_names_says_nothing_and_one_made_twice_is_one(watch: MeshWatch) -> None:
    with rank_of(4):
        init_device_mesh("cpu", (4,))
        for _ in range(2):
            init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    assert [mesh.names for mesh in watch.seen] == [("dp",)]


def test_a_rank_outside_a_mesh_has_no_coordinate_in_it(watch: MeshWatch) -> None:
    with rank_of(4, rank=3):
        DeviceMesh("cpu", [0, 1], mesh_dim_names=("tp",))
    (mesh,) = watch.seen
    assert (mesh.shape, mesh.coordinate) == ((2,), ())


def test_a_mesh_that_cannot_be_made_fails_as_ever(watch: MeshWatch) -> None:
    with rank_of(4), pytest.raises((RuntimeError, ValueError)):
        init_device_mesh("cpu", (3, 5), mesh_dim_names=("dp", "tp"))
    assert not watch.seen


def test_closed_it_sees_nothing() -> None:
    watch, original = MeshWatch(), DeviceMesh.__init__
    watch.open()
    watch.open()
    watch.close()
    watch.close()
    assert DeviceMesh.__init__ is original
    with rank_of(4):
        init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    assert not watch.seen


def test_a_plain_parameter_lies_whole_on_this_rank() -> None:
    assert layout(nn.Linear(6, 4).weight) == Layout(24, 24, 24)


def test_tensor_parallel_cuts_what_a_rank_has() -> None:
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        weight = distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])
        assert layout(weight) == Layout(12, 12, 48)
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Replicate()])) == Layout(48, 48, 48)


def test_data_parallel_shards_are_undone() -> None:
    """FSDP: a rank computes with the whole, although a part of it lies in its memory."""
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("dp_shard",))
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])) == Layout(12, 48, 48)


def test_a_mesh_without_names_is_taken_for_data_parallel() -> None:
    with rank_of(4, rank=1):
        mesh = init_device_mesh("cpu", (4,))
        assert layout(distribute_tensor(torch.zeros(8, 6), mesh, [Shard(0)])) == Layout(12, 48, 48)


@pytest.mark.parametrize(("rank", "rows"), [(0, 3), (2, 3), (3, 1)])
def test_pieces_need_not_be_equal(rank: int, rows: int) -> None:
    """10 rows over 4 ranks, as torch.chunk cuts them: 3, 3, 3, 1."""
    with rank_of(4, rank):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        weight = distribute_tensor(torch.zeros(10, 6), mesh, [Shard(0)])
        assert layout(weight) == Layout(weight.to_local().numel(), 6 * rows, 60)
        assert weight.to_local().numel() == 6 * rows


def test_a_rank_may_have_none_of_it() -> None:
    with rank_of(4, rank=3):
        mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("tp",))
        assert layout(distribute_tensor(torch.zeros(3, 5), mesh, [Shard(0)])) == Layout(0, 0, 15)


def test_both_at_once() -> None:
    with rank_of(8, rank=5):
        mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        weight = distribute_tensor(torch.zeros(8, 16), mesh, [Shard(0), Shard(1)])
        assert layout(weight) == Layout(8 * 16 // 8, 8 * 16 // 4, 8 * 16)


def test_a_model_under_fsdp_and_tensor_parallel() -> None:
    """What a user builds: local sizes are an eighth, a rank's own a quarter."""
    with rank_of(8, rank=5):
        mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.ReLU(), nn.Linear(32, 16, bias=False))
        parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=mesh["dp"])
        whole = 16 * 32
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        assert [layout(parameter) for parameter in model.parameters()] == [Layout(whole // 8, whole // 4, whole)] * 2


def test_a_parameter_that_zero_3_has_emptied_has_its_full_size() -> None:
    """As DeepSpeed leaves them on the parameter: ``ds_numel``, and ``ds_tensor`` with this rank's padded part."""
    parameter = nn.Parameter(torch.empty(0))
    parameter.ds_numel, parameter.ds_tensor = 763, torch.empty(384)  # type: ignore[attr-defined]
    assert layout(parameter) == Layout(384, 763, 763)
