"""Axes: sizes and coordinates from the names of mesh dimensions, and from the script's declaration."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.errors import UsageError
from distprof.records import ASSUMED, AXES, Mesh, Topology
from distprof.shard.validation import validate
from distprof.topology.axes import AxisEvidence, declared_topology, is_data_axis, merge_declared, resolve
from distprof.topology.meshes import SeenMesh, mesh_evidence


def mesh(rank: int, **dimensions: int) -> SeenMesh:
    """Makes a mesh over the whole world, whose last dimension varies fastest."""
    return SeenMesh.in_order(tuple(dimensions), tuple(dimensions.values()), rank)


def part(rank: int, ranks: tuple[int, ...], name: str) -> SeenMesh:
    """Makes a mesh of one dimension over some ranks, as a slice is."""
    return SeenMesh(Mesh((name,), (len(ranks),), (ranks.index(rank),) if rank in ranks else ()), ranks)


def from_meshes(meshes: tuple[SeenMesh, ...], rank: int, world_size: int) -> Topology:
    return resolve(mesh_evidence(meshes), rank, world_size)


def sizes(topology: Topology) -> dict[str, int]:
    """Returns the axes that are not 1, without the finer ones."""
    return {axis: size for axis, size in topology.sizes.items() if size > 1 and axis in (*AXES, "mp")}


def test_without_meshes_data_parallel_is_assumed() -> None:
    topology = from_meshes((), rank=3, world_size=8)
    assert topology.source == ASSUMED
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 8}, 3)
    assert topology.notes == ()


def test_one_mesh() -> None:
    topology = from_meshes((mesh(6, dp=2, tp=4),), rank=6, world_size=8)
    assert topology.source == "device_mesh"
    assert sizes(topology) == {"dp": 2, "tp": 4, "mp": 4}
    assert topology.coordinates == {"dp": 1, "tp": 2, "pp": 0, "cp": 0, "ep": 0, "mp": 2}
    assert topology.sources == {"dp": "device_mesh", "tp": "device_mesh"}


def test_coordinates_come_from_the_mesh() -> None:
    """With tp outside dp, rank 5 of tp 2 x dp 4 has tp 1, dp 1."""
    topology = from_meshes((mesh(5, tp=2, dp=4),), rank=5, world_size=8)
    assert (topology.coordinates["tp"], topology.coordinates["dp"]) == (1, 1)


def test_replicate_times_shard_is_data_parallel() -> None:
    topology = from_meshes((mesh(6, dp_replicate=2, dp_shard=4),), rank=6, world_size=8)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 8}, 6)
    assert (topology.sizes["dp_shard"], topology.coordinates["dp_shard"]) == (4, 2)
    assert (topology.sizes["dp_replicate"], topology.coordinates["dp_replicate"]) == (2, 1)


def test_slices_add_nothing() -> None:
    whole = mesh(6, dp=2, tp=4)
    for meshes in ((whole, part(6, (4, 5, 6, 7), "tp")), (part(6, (4, 5, 6, 7), "tp"), whole)):
        topology = from_meshes(meshes, rank=6, world_size=8)
        assert sizes(topology) == {"dp": 2, "tp": 4, "mp": 4}
        assert topology.notes == ()


def test_slices_do_not_contradict_their_mesh() -> None:
    """FSDP uses the shard dimension, and torchtitan's loss all dimensions: data is still parallel over both."""
    whole = mesh(5, dp_replicate=2, dp_shard=2, tp=2)
    topology = from_meshes((part(5, (5, 7), "dp_shard"), whole, part(5, (1, 3, 5, 7), "loss_mesh")), 5, 8)
    assert (topology.sizes["dp"], topology.sizes["dp_shard"], topology.notes) == (4, 2, ())


def test_expert_mesh_beside_dense_mesh() -> None:
    """A mesh dp 4 x tp 2, and a mesh ep 4 with the experts' own data parallelism over the same ranks."""
    topology = from_meshes((mesh(7, dp=4, tp=2), mesh(7, dp_replicate=1, edp=2, ep=4)), rank=7, world_size=8)
    assert sizes(topology) == {"dp": 4, "tp": 2, "ep": 4, "mp": 2}
    assert (topology.coordinates["ep"], topology.sizes["edp"], topology.coordinates["edp"]) == (3, 2, 1)
    assert topology.notes == ()


def test_dp_beside_ep_alone_is_edp() -> None:
    """In dp 2 x ep 2 over four ranks, every rank has its own data, and experts are replicated over dp."""
    topology = from_meshes((mesh(3, dp=2, ep=2),), rank=3, world_size=4)
    assert sizes(topology) == {"dp": 4, "ep": 2}
    assert (topology.coordinates["dp"], topology.coordinates["ep"], topology.coordinates["edp"]) == (3, 1, 1)


def test_fsdp_over_dp_and_cp_is_no_conflict() -> None:
    """In torchtitan, batches are split over dp, sequences over cp, and FSDP shards over both."""
    topology = from_meshes((mesh(5, pp=1, fsdp=4, tp=2), mesh(5, pp=1, batch=2, cp=2, tp=2)), rank=5, world_size=8)
    assert sizes(topology) == {"dp": 2, "cp": 2, "tp": 2, "mp": 2}
    assert topology.notes == ()


def test_unnamed_rest_is_data_parallel() -> None:
    topology = from_meshes((part(5, (4, 5), "tp"),), rank=5, world_size=8)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 4, "tp": 2, "mp": 2}, 2)
    assert topology.sources == {"tp": "device_mesh", "dp": ASSUMED}


def test_dp_coordinate_follows_from_strides() -> None:
    """With groups of every fourth rank, neighbours differ in dp, unlike in Megatron's order."""
    places = [resolve([AxisEvidence("x", "tp", (r % 4, r % 4 + 4))], r, 8).coordinates for r in range(8)]
    assert [place["dp"] for place in places] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_uneven_groups_add_a_note() -> None:
    topology = resolve([AxisEvidence("x", "tp", (0, 1, 5, 6))], 5, 8)
    assert sizes(topology) == {"dp": 2, "tp": 4, "mp": 4}
    assert "not evenly spaced" in topology.notes[0]


def test_mp_is_tp_times_pp() -> None:
    topology = from_meshes((mesh(5, pp=2, dp=2, tp=2),), rank=5, world_size=8)
    assert (topology.sizes["mp"], topology.coordinates["mp"]) == (4, 3)


def test_conflicting_meshes_add_a_note() -> None:
    topology = from_meshes((part(0, (0, 1), "tp"), part(0, (0, 1, 2, 3), "tensor")), rank=0, world_size=8)
    assert topology.sizes["tp"] == 2
    (note,) = topology.notes
    assert note.startswith("device_mesh says tp 2, device_mesh says tp 4")


def test_conflicting_sources_are_named() -> None:
    topology = resolve([AxisEvidence("deepspeed", "tp", (0, 1)), AxisEvidence("device_mesh", "tp", (0, 2))], 0, 4)
    assert topology.coordinates["tp"] == 0 and topology.sources["tp"] == "deepspeed"
    assert topology.notes == (
        "deepspeed says tp 2, device_mesh says tp 2, over some of the same ranks (ranks 0, 1 and 0, 2); "
        "the first is shown",
    )


def test_ranks_differ_on_one_axis_only() -> None:
    """If dp covers all ranks and tp two of them, one of the two is wrong."""
    topology = resolve([AxisEvidence("device_mesh", "tp", (0, 1)), AxisEvidence("torch", "dp", (0, 1, 2, 3))], 0, 4)
    assert sizes(topology) == {"dp": 2, "tp": 2, "mp": 2}
    assert "device_mesh says tp 2, torch says dp 4" in topology.notes[0]


def test_axis_that_does_not_divide_the_world() -> None:
    topology = resolve([AxisEvidence("x", "tp", (0, 1, 2, 3))], 0, 6)
    assert sizes(topology) == {"dp": 6}
    assert topology.notes == (
        "x says tp 4, which does not divide a world of 6 ranks beside the rest; the first is shown",
    )


def test_mesh_without_this_rank_is_ignored() -> None:
    topology = from_meshes((part(5, (0, 1), "tp"),), rank=5, world_size=8)
    assert sizes(topology) == {"dp": 8}


def test_unknown_names_are_ignored() -> None:
    topology = from_meshes((mesh(5, rows=2, columns=4),), rank=5, world_size=8)
    assert (topology.source, sizes(topology)) == (ASSUMED, {"dp": 8})


def test_unknown_names_beside_known_ones_are_dp() -> None:
    """The coordinate is the mesh's own, not one that follows from the rank."""
    topology = from_meshes((mesh(5, tp=2, rows=4),), rank=5, world_size=8)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 4, "tp": 2, "mp": 2}, 1)
    assert topology.sources == {"tp": "device_mesh", "dp": ASSUMED}


def test_fake_groups_are_no_axis() -> None:
    seen = mesh(1, dp=2, ep=2)
    topology = resolve(mesh_evidence([seen], fakes={frozenset({0, 1}), frozenset({1, 3})}), 1, 4)
    assert (topology.source, sizes(topology)) == (ASSUMED, {"dp": 4})


def test_sizes_that_do_not_multiply_to_the_world() -> None:
    topology = from_meshes((mesh(0, dp=2, tp=2),), rank=0, world_size=8)
    assert (topology.source, sizes(topology)) == (ASSUMED, {"dp": 8})
    assert "the world has 8" in topology.notes[0]


def test_declaration_holds_over_detected_axes() -> None:
    seen = from_meshes((mesh(5, dp=2, tp=4), mesh(5, edp=4, ep=2)), rank=5, world_size=8)
    topology = merge_declared(declared_topology({"tp": 2}, {}, 5, 8), seen)
    assert sizes(topology) == {"dp": 4, "tp": 2, "ep": 2, "mp": 2}, "the script declared no ep"
    assert (topology.source, topology.sources["ep"]) == ("declared", "device_mesh")
    assert "declared says tp 2, device_mesh says tp 4; the first is shown" in topology.notes


def test_declaration() -> None:
    topology = declared_topology({"tp": 2, "ep": 4}, {}, rank=5, world_size=8)
    assert topology.source == "declared"
    assert sizes(topology) == {"dp": 4, "tp": 2, "ep": 4, "mp": 2}
    assert (topology.coordinates["tp"], topology.coordinates["dp"], topology.coordinates["ep"]) == (1, 2, 2)


def test_tp_varies_fastest_then_cp_dp_pp() -> None:
    places = [declared_topology({"tp": 2, "cp": 2, "dp": 2, "pp": 2}, {}, rank, 16).coordinates for rank in range(16)]
    assert [place["tp"] for place in places[:4]] == [0, 1, 0, 1]
    assert [place["cp"] for place in places[:4]] == [0, 0, 1, 1]
    assert [place["dp"] for place in places[:8]] == [0] * 4 + [1] * 4
    assert [place["pp"] for place in places] == [0] * 8 + [1] * 8


def test_ep_lies_over_the_ranks_of_one_stage() -> None:
    over_data = [declared_topology({"tp": 2, "ep": 4}, {}, rank, 8).coordinates["ep"] for rank in range(8)]
    assert over_data == [0, 0, 1, 1, 2, 2, 3, 3]
    over_all = [declared_topology({"tp": 2, "ep": 8}, {}, rank, 8).coordinates["ep"] for rank in range(8)]
    assert over_all == list(range(8))


def test_declared_coordinates() -> None:
    topology = declared_topology({"tp": 2}, {"tp": 1, "dp": 0}, rank=0, world_size=8)
    assert (topology.coordinates["tp"], topology.coordinates["dp"]) == (1, 0)


@pytest.mark.parametrize(
    ("said", "coordinates", "why"),
    [
        ({"tq": 2}, {}, "tq"),
        ({}, {"zz": 1}, "zz"),
        ({"tp": 3}, {}, "the world has 8"),
        ({"dp": 2, "tp": 2}, {}, "the world has 8"),
        ({"tp": 16}, {}, "the world has 8"),
        ({"tp": 0}, {}, "tp"),
        ({"tp": -2}, {}, "tp"),
        ({"tp": "2"}, {}, "tp"),
        ({"tp": 2.0}, {}, "tp"),
        ({"tp": True}, {}, "tp"),
        ({"ep": 16}, {}, "ep"),
        ({"ep": 3}, {}, "ep"),
        ({"tp": 2}, {"tp": 2}, "tp"),
        ({"tp": 2}, {"tp": -1}, "tp"),
        ({"tp": 2}, {"dp": 4}, "dp"),
        ({"tp": 2}, {"tp": None}, "tp"),
    ],
)
def test_invalid_declarations(said: dict[str, Any], coordinates: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        declared_topology(said, coordinates, rank=0, world_size=8)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_empty_declaration_is_data_parallel() -> None:
    topology = declared_topology({}, {}, rank=1, world_size=4)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 4}, 1)


def test_coordinates_alone_if_all_sizes_are_one() -> None:
    assert declared_topology({}, {"dp": 3}, rank=1, world_size=4).coordinates["dp"] == 3


names = st.sampled_from(["dp", "tp", "pp", "cp", "ep", "dp_shard", "dp_replicate", "edp", "mp", "rows", "batch"])
dimensions = st.dictionaries(names, st.integers(1, 4), min_size=1, max_size=4)


@patient
@given(st.lists(dimensions, max_size=3), st.integers(1, 64), st.data())
def test_topology_is_consistent_for_any_meshes(
    shapes: list[dict[str, int]], world_size: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, world_size - 1))
    meshes = tuple(mesh(data.draw(st.integers(0, prod(s.values()) - 1)), **s) for s in shapes)
    topology = from_meshes(meshes, rank, world_size)
    validate(topology)
    assert {*AXES, "mp"} <= topology.sizes.keys()
    product = topology.sizes["dp"] * topology.sizes["cp"] * topology.sizes["mp"]
    assert product == world_size


@patient
@given(st.permutations(["dp", "tp", "pp", "cp"]), st.lists(st.integers(1, 3), min_size=4, max_size=4))
def test_ranks_have_different_coordinates(order: list[str], shape: list[int]) -> None:
    """Coordinates on an unnamed axis follow from those on the others."""
    known = dict(zip(order, shape, strict=True))
    shown = {axis if axis != "dp" else "rows": size for axis, size in known.items()}
    world_size = prod(shape)
    places = [from_meshes((mesh(rank, **shown),), rank, world_size).coordinates for rank in range(world_size)]
    assert len({tuple(place[axis] for axis in order) for place in places}) == world_size


@patient
@given(dimensions, st.integers(0, 63))
def test_declarations_are_consistent_or_refused(said: dict[str, int], rank: int) -> None:
    try:
        topology = declared_topology(said, {}, rank, 64)
    except UsageError:
        return
    validate(topology)


def test_is_data_axis() -> None:
    assert all(map(is_data_axis, ("dp", "dp_shard", "fsdp", "edp", "efsdp")))
    assert not any(map(is_data_axis, ("tp", "pp", "ep", "cp", "rows")))
