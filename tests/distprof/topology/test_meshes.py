"""Device meshes, recorded as a script makes them, on one rank of a fake world."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from support.worlds import rank_of
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from distprof.topology.meshes import MeshRecorder, SeenMesh, mesh_axes, seen_mesh, unknown_dimension_names


@pytest.fixture
def watch() -> Iterator[MeshRecorder]:
    watch = MeshRecorder()
    watch.open()
    yield watch
    watch.close()


def test_mesh_is_recorded_when_made(watch: MeshRecorder) -> None:
    with rank_of(8, rank=6):
        init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
    (seen,) = watch.seen
    assert (seen.mesh.names, seen.mesh.shape, seen.mesh.coordinate) == (("dp", "tp"), (2, 4), (1, 2))


def test_slices_are_recorded(watch: MeshRecorder) -> None:
    with rank_of(8, rank=6):
        mesh = DeviceMesh("cpu", torch.arange(8).view(2, 4), mesh_dim_names=("pp", "dp"))
        assert mesh["dp"].size() == 4
    assert watch.seen[0].mesh.names == ("pp", "dp")
    assert all(seen.mesh.names in (("pp", "dp"), ("dp",), ("pp",)) for seen in watch.seen)


def test_unnamed_and_repeated_meshes(watch: MeshRecorder) -> None:
    with rank_of(4):
        init_device_mesh("cpu", (4,))
        for _ in range(2):
            init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    assert [seen.mesh.names for seen in watch.seen] == [("dp",)]


def test_rank_outside_a_mesh(watch: MeshRecorder) -> None:
    with rank_of(4, rank=3):
        DeviceMesh("cpu", [0, 1], mesh_dim_names=("tp",))
    (seen,) = watch.seen
    assert (seen.mesh.shape, seen.mesh.coordinate) == ((2,), ())


def test_mesh_that_raises(watch: MeshRecorder) -> None:
    with rank_of(4), pytest.raises((RuntimeError, ValueError)):
        init_device_mesh("cpu", (3, 5), mesh_dim_names=("dp", "tp"))
    assert not watch.seen


def test_closed_recorder_records_nothing() -> None:
    watch, original = MeshRecorder(), DeviceMesh.__init__
    watch.open()
    watch.open()
    watch.close()
    watch.close()
    assert DeviceMesh.__init__ is original
    with rank_of(4):
        init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    assert not watch.seen


def test_ranks_along_an_axis(watch: MeshRecorder) -> None:
    with rank_of(8, rank=6):
        init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("dp_replicate", "dp_shard", "tp"))
    (seen,) = watch.seen
    assert mesh_axes(seen) == {"dp": (0, 2, 4, 6), "dp_replicate": (2, 6), "dp_shard": (4, 6), "tp": (6, 7)}


def test_ranks_of_slices_and_flattened_meshes(watch: MeshRecorder) -> None:
    with rank_of(8, rank=6):
        mesh = init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("dp", "cp", "tp"))
        mesh["dp", "cp"]._flatten("dp_cp")
    flat = next(seen for seen in watch.seen if seen.mesh.names == ("dp_cp",))
    assert (flat.ranks, flat.mesh.coordinate) == ((0, 2, 4, 6), (3,))
    assert list(unknown_dimension_names(watch.seen)) == []


def test_unknown_dimension_is_named() -> None:
    (note,) = unknown_dimension_names([SeenMesh.in_order(("rows", "tp"), (2, 4), 0)])
    assert note.startswith("dimension rows of the device mesh rows 2 x tp 4: no axis is known by such a name")


def test_a_mesh_is_copied_once_and_only_while_it_lives() -> None:
    with rank_of(8, rank=6):
        mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        seen = seen_mesh(mesh)
        assert seen_mesh(mesh) is seen and seen.members == {*range(8)}
        assert [*map(set, seen.groups)] == [{2, 6}, {4, 5, 6, 7}]
    del mesh
    gc.collect()
    with rank_of(8, rank=1):
        other = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
        assert seen_mesh(other).mesh.coordinate == (0, 1)
