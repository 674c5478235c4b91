"""Where ranks stand, and what is said when they do not agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.job.topology import JobTopology, job_topology
from distprof.merge.load.run import run_of_shards
from distprof.merge.load.topology_readings import merge_topologies
from distprof.records import Group, Mesh, Record, Topology


def layout(job: Job, bend: Any = None) -> JobTopology:
    def bent(rank: int, record: Record) -> Record | None:
        return bend(rank, record) if bend and isinstance(record, Topology) else record

    shards = []
    for rank in range(job.world):
        kept = [bent(rank, record) for record in rank_records(job, rank)]
        shards.append(shard_of(record for record in kept if record is not None))
    return job_topology(run_of_shards(shards))


def test_a_declared_layout_is_taken_as_it_is() -> None:
    found = layout(Job(dp=2, tp=2, pp=2, ep=2))
    assert found.info.sizes == {"dp": 2, "tp": 2, "pp": 2, "cp": 1, "ep": 2, "mp": 4}
    assert found.coordinates[7] == {"dp": 1, "tp": 1, "pp": 1, "cp": 0, "ep": 1, "mp": 3}
    assert (found.info.source, found.notes) == ("declared", ())


def test_roles_differ_by_everything_but_dp_and_ep() -> None:
    found = layout(Job(dp=4, tp=2, ep=2))
    assert [found.role(rank) == found.role(0) for rank in range(8)] == [True, False] * 4


def test_assuming_data_parallel_says_so_with_the_remedy() -> None:
    (note,) = layout(Job(dp=3, source="assumed")).notes
    assert note.startswith("data parallel assumed: ")
    assert "distprof.set_topology(" in note


def test_a_single_rank_needs_no_assumption() -> None:
    assert layout(Job(dp=1, source="assumed")).notes == ()


def test_without_any_record_data_parallel_is_assumed() -> None:
    found = layout(Job(dp=3), lambda rank, topology: None)
    assert found.info.sizes == {"dp": 3, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "mp": 1}
    assert found.coordinates[2] == {"dp": 2, "tp": 0, "pp": 0, "cp": 0, "ep": 0, "mp": 0}
    assert found.notes[0].startswith("data parallel assumed")


def test_most_ranks_win_and_the_others_are_named() -> None:
    def bend(rank: int, topology: Topology) -> Topology:
        return replace(topology, sizes={**topology.sizes, "ep": 4}) if rank in (1, 2) else topology

    found = layout(Job(dp=8), bend)
    assert found.info.sizes["ep"] == 1
    assert found.notes == (
        "ranks 1-2 see ep 4 (declared), the others ep 1 (declared): the latter is shown, "
        "and the place of ranks 1-2 follows from that of the others",
    )


def test_the_better_source_wins_against_many_and_both_are_named() -> None:
    def bend(rank: int, topology: Topology) -> Topology:
        if rank == 0:
            return topology  # dp 4, tp 2 by a framework
        return Topology("assumed", {"dp": 8}, {"dp": rank})

    found = layout(Job(dp=4, tp=2, source="deepspeed"), bend)
    assert (found.info.source, found.info.sizes["tp"]) == ("deepspeed", 2)
    assert [found.coordinates[rank]["tp"] for rank in range(8)] == [0, 1] * 4
    assert found.notes[0].startswith("ranks 1-7 see dp 8, tp 1 (assumed), the others dp 4, tp 2 (deepspeed)")


@given(st.permutations(["dp", "tp", "pp"]), st.sets(st.integers(0, 11), max_size=8))
def test_places_follow_from_the_order_of_the_others(order: list[str], silent: set[int]) -> None:
    sizes = {"dp": 3, "tp": 2, "pp": 2}

    def place(rank: int) -> dict[str, int]:
        found = {}
        for axis in order:
            found[axis], rank = rank % sizes[axis], rank // sizes[axis]
        return found

    def bend(rank: int, topology: Topology) -> Topology | None:
        return None if rank in silent else Topology("megatron", sizes, place(rank))

    found = layout(Job(dp=3, tp=2, pp=2, layers=0, experts=0, steps=0), bend)
    known = [rank for rank in range(12) if rank not in silent]
    for rank in known:
        assert found.coordinates[rank].items() >= place(rank).items()
    if not silent or len(known) > 10:
        assert all(found.coordinates[rank].items() >= place(rank).items() for rank in range(12))


def test_sizes_that_do_not_make_up_the_world_are_an_error_and_no_table() -> None:
    found = layout(Job(dp=3), lambda rank, topology: replace(topology, sizes={**topology.sizes, "tp": 2}))
    assert found.notes == (
        "the parallel axes do not make up the job: dp 3 x cp 1 x tp 2 x pp 1 is 6 ranks, but the job has 3; "
        "pure data parallel is assumed instead",
    )
    assert (found.info.source, found.info.sizes["dp"], found.info.sizes["mp"]) == ("assumed", 3, 1)
    assert found.coordinates[2] == {"dp": 2, "tp": 0, "pp": 0, "cp": 0, "ep": 0, "mp": 0}


def test_experts_that_do_not_fit_the_ranks_of_a_stage_are_an_error() -> None:
    found = layout(Job(dp=3), lambda rank, topology: replace(topology, sizes={**topology.sizes, "ep": 2}))
    assert "ep 2 does not divide the 3 ranks that work on one set of layers" in found.notes[0]


def test_two_ranks_at_one_place_are_an_error() -> None:
    def bend(rank: int, topology: Topology) -> Topology:
        return replace(topology, coordinates={**topology.coordinates, "dp": 0}) if rank == 2 else topology

    found = layout(Job(dp=3), bend)
    assert "ranks 0, 2 say that they stand at one place (dp 0, cp 0, tp 0, pp 0)" in found.notes[0]
    assert [found.coordinates[rank]["dp"] for rank in range(3)] == [0, 1, 2]


def test_finer_axes_are_kept_with_who_told_them() -> None:
    def bend(rank: int, topology: Topology) -> Topology:
        sizes, coordinates = topology.sizes | {"dp_shard": 2}, topology.coordinates | {"dp_shard": rank % 2}
        return replace(topology, sizes=sizes, coordinates=coordinates, sources={"dp": "declared", "dp_shard": "fsdp"})

    found = layout(Job(dp=4), bend)
    assert found.info.sizes["dp_shard"] == 2
    assert [found.coordinates[rank]["dp_shard"] for rank in range(4)] == [0, 1, 0, 1]
    assert found.info.sources["dp_shard"] == "fsdp"


# ---- two readings of one rank ----------------------------------------------------------------------------------------

MESH = Topology("device_mesh", {"dp": 4, "tp": 1}, {"dp": 1, "tp": 0}, sources={"dp": "device_mesh"})


def test_what_appears_later_is_added_and_what_goes_stays() -> None:
    first = replace(MESH, meshes=(Mesh(("dp",), (4,), (1,)),), groups=(Group("0"),), notes=("an early word",))
    later = replace(
        MESH, sizes={"dp": 4, "ep": 2}, coordinates={"dp": 1, "ep": 1}, groups=(Group("1"),), notes=("late",)
    )
    found = merge_topologies([first, later])
    assert found is not None
    assert (found.sizes, found.meshes, found.notes) == (later.sizes, first.meshes, ("late",))
    assert [group.name for group in found.groups] == ["0", "1"]


def test_an_assumption_does_not_undo_what_was_told() -> None:
    assert merge_topologies([MESH, Topology("assumed", {"dp": 4}, {"dp": 1})]) == MESH
    assert merge_topologies([Topology("assumed", {"dp": 4}, {"dp": 1}), MESH]) == MESH
    assert merge_topologies([]) is None


def test_readings_that_contradict_each_other_are_both_named() -> None:
    later = Topology(
        "deepspeed", {"dp": 2, "tp": 2}, {"dp": 0, "tp": 1}, sources={"dp": "deepspeed", "tp": "deepspeed"}
    )
    found = merge_topologies([MESH, later])
    assert found is not None and found.sizes == later.sizes
    assert found.notes == (
        "the parallel axes were read twice and changed: dp 4 (device_mesh) at first, dp 2 (deepspeed) later; "
        "the latter is shown",
    )


def test_notes_of_the_recorder_are_said_once() -> None:
    found = layout(Job(dp=3), lambda rank, topology: replace(topology, notes=("two meshes name tp",)))
    assert found.notes == ("two meshes name tp",)


def test_axes_that_a_rank_does_not_know_have_size_one() -> None:
    found = layout(Job(dp=2), lambda rank, topology: replace(topology, sizes={"dp": 2}, coordinates={"dp": rank}))
    assert found.info.sizes == {"dp": 2, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "mp": 1}
    assert found.coordinates[1] == {"dp": 1, "tp": 0, "pp": 0, "cp": 0, "ep": 0, "mp": 0}
