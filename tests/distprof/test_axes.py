"""From mesh dimension names, and from what a script declares, to sizes and coordinates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.checks import check
from distprof.errors import UsageError
from distprof.frameworks.axes import declared, from_meshes, is_data_axis
from distprof.records import AXES, Mesh, Topology


def mesh(coordinate: tuple[int, ...] = (), **dimensions: int) -> Mesh:
    return Mesh(tuple(dimensions), tuple(dimensions.values()), coordinate or (0,) * len(dimensions))


def sizes(topology: Topology) -> dict[str, int]:
    """The axes that are not 1."""
    return {axis: size for axis, size in topology.sizes.items() if size > 1}


def test_without_meshes_it_is_pure_data_parallel_and_says_so() -> None:
    topology = from_meshes((), rank=3, world_size=8)
    assert topology.source == "assumed"
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 8}, 3)
    assert topology.notes == ()


def test_one_mesh_says_all() -> None:
    topology = from_meshes((mesh((1, 2), dp=2, tp=4),), rank=6, world_size=8)
    assert topology.source == "device_mesh"
    assert sizes(topology) == {"dp": 2, "tp": 4, "mp": 4}
    assert topology.coordinates == {"dp": 1, "tp": 2, "pp": 0, "cp": 0, "ep": 0, "mp": 2}


def test_coordinates_are_the_meshes_own_in_whatever_order() -> None:
    """tp outside dp: rank 5 of tp 2 x dp 4 is at tp 1, dp 1."""
    topology = from_meshes((mesh((1, 1), tp=2, dp=4),), rank=5, world_size=8)
    assert (topology.coordinates["tp"], topology.coordinates["dp"]) == (1, 1)


def test_replicate_times_shard_is_data_parallel() -> None:
    topology = from_meshes((mesh((1, 2), dp_replicate=2, dp_shard=4),), rank=6, world_size=8)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 8}, 6)


def test_slices_of_a_mesh_say_nothing_new() -> None:
    whole = mesh((1, 2), dp_replicate=2, dp_shard=4)
    for meshes in ((whole, mesh((2,), dp_shard=4)), (mesh((2,), dp_shard=4), whole)):
        topology = from_meshes(meshes, rank=6, world_size=8)
        assert sizes(topology) == {"dp": 8}
        assert topology.notes == ()


def test_a_mesh_of_experts_beside_the_one_of_training() -> None:
    """dp 4 x tp 2, and ep 4 over the same ranks with what is left of data parallelism for experts."""
    meshes = (mesh((3, 1), dp=4, tp=2), mesh((1, 3), edp=2, ep=4))
    topology = from_meshes(meshes, rank=7, world_size=8)
    assert sizes(topology) == {"dp": 4, "tp": 2, "ep": 4, "mp": 2}
    assert topology.coordinates["ep"] == 3
    assert topology.notes == ()


def test_an_axis_named_alone_leaves_the_rest_to_data_parallelism() -> None:
    topology = from_meshes((mesh((1,), tp=2),), rank=5, world_size=8)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 4, "tp": 2, "mp": 2}, 2)


def test_mp_is_tp_times_pp() -> None:
    topology = from_meshes((mesh((1, 0, 1), pp=2, dp=2, tp=2),), rank=5, world_size=8)
    assert (topology.sizes["mp"], topology.coordinates["mp"]) == (4, 3)


def test_meshes_that_disagree_are_told() -> None:
    topology = from_meshes((mesh((0,), tp=2), mesh((0,), tensor=4)), rank=0, world_size=8)
    assert topology.sizes["tp"] == 2
    (note,) = topology.notes
    assert "disagree on tp" in note and "2 and 4" in note


def test_a_mesh_that_this_rank_is_not_in_says_nothing() -> None:
    topology = from_meshes((Mesh(("tp",), (2,), ()),), rank=5, world_size=8)
    assert sizes(topology) == {"dp": 8}


def test_names_that_mean_nothing_are_passed_over() -> None:
    topology = from_meshes((mesh((1, 1), rows=2, columns=4),), rank=5, world_size=8)
    assert (topology.source, sizes(topology)) == ("assumed", {"dp": 8})
    assert topology.meshes


def test_sizes_that_do_not_make_the_world_are_not_believed() -> None:
    topology = from_meshes((mesh((0, 0), dp=2, tp=2),), rank=0, world_size=8)
    assert (topology.source, sizes(topology)) == ("assumed", {"dp": 8})
    assert "the world has 8" in topology.notes[0]


def test_the_script_says_outright() -> None:
    topology = declared({"tp": 2, "ep": 4}, {}, rank=5, world_size=8)
    assert topology.source == "declared"
    assert sizes(topology) == {"dp": 4, "tp": 2, "ep": 4, "mp": 2}
    assert (topology.coordinates["tp"], topology.coordinates["dp"], topology.coordinates["ep"]) == (1, 2, 2)


def test_tp_varies_fastest_then_cp_dp_pp() -> None:
    places = [declared({"tp": 2, "cp": 2, "dp": 2, "pp": 2}, {}, rank, 16).coordinates for rank in range(16)]
    assert [place["tp"] for place in places[:4]] == [0, 1, 0, 1]
    assert [place["cp"] for place in places[:4]] == [0, 0, 1, 1]
    assert [place["dp"] for place in places[:8]] == [0] * 4 + [1] * 4
    assert [place["pp"] for place in places] == [0] * 8 + [1] * 8


def test_ep_lies_over_the_ranks_of_one_stage() -> None:
    over_data = [declared({"tp": 2, "ep": 4}, {}, rank, 8).coordinates["ep"] for rank in range(8)]
    assert over_data == [0, 0, 1, 1, 2, 2, 3, 3]
    over_all = [declared({"tp": 2, "ep": 8}, {}, rank, 8).coordinates["ep"] for rank in range(8)]
    assert over_all == list(range(8))


def test_coordinates_may_be_said_too() -> None:
    topology = declared({"tp": 2}, {"tp": 1, "dp": 0}, rank=0, world_size=8)
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
def test_what_makes_no_sense_is_said_in_one_sentence(
    said: dict[str, Any], coordinates: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError) as caught:
        declared(said, coordinates, rank=0, world_size=8)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_saying_nothing_leaves_everything_to_data_parallelism() -> None:
    topology = declared({}, {}, rank=1, world_size=4)
    assert (sizes(topology), topology.coordinates["dp"]) == ({"dp": 4}, 1)


def test_coordinates_alone_are_enough_where_every_size_is_one() -> None:
    assert declared({}, {"dp": 3}, rank=1, world_size=4).coordinates["dp"] == 3


names = st.sampled_from(["dp", "tp", "pp", "cp", "ep", "dp_shard", "dp_replicate", "edp", "mp", "rows", "batch"])
dimensions = st.dictionaries(names, st.integers(1, 4), min_size=1, max_size=4)


@patient
@given(st.lists(dimensions, max_size=3), st.integers(1, 64), st.data())
def test_whatever_meshes_there_are_the_topology_is_sound(
    shapes: list[dict[str, int]], world_size: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, world_size - 1))
    meshes = tuple(
        mesh(tuple(data.draw(st.integers(0, size - 1)) for size in shape.values()), **shape) for shape in shapes
    )
    topology = from_meshes(meshes, rank, world_size)
    check(topology)
    assert set(topology.sizes) == {*AXES, "mp"}
    product = topology.sizes["dp"] * topology.sizes["cp"] * topology.sizes["mp"]
    assert product == world_size


@patient
@given(dimensions, st.integers(0, 63))
def test_whatever_is_declared_is_sound_or_refused(said: dict[str, int], rank: int) -> None:
    try:
        topology = declared(said, {}, rank, 64)
    except UsageError:
        return
    check(topology)


def test_data_axes_are_those_on_which_every_rank_computes_with_the_whole() -> None:
    assert all(map(is_data_axis, ("dp", "dp_shard", "fsdp", "edp", "efsdp")))
    assert not any(map(is_data_axis, ("tp", "pp", "ep", "cp", "rows")))
