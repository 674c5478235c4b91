"""Where ranks stand, and what is said when they do not agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.synthetic import Job, rank_records, shard_of

from distprof.merge.load import run_of_shards
from distprof.merge.topology import Layout, layout_of
from distprof.records import Record, Topology


def layout(job: Job, bend: Any = None) -> Layout:
    def bent(rank: int, record: Record) -> Record | None:
        return bend(rank, record) if bend and isinstance(record, Topology) else record

    shards = []
    for rank in range(job.world):
        kept = [bent(rank, record) for record in rank_records(job, rank)]
        shards.append(shard_of(record for record in kept if record is not None))
    return layout_of(run_of_shards(shards))


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

    found = layout(Job(dp=5), bend)
    assert found.info.sizes["ep"] == 1
    assert found.notes == ("ranks 1-2 saw other sizes of the parallel axes: shown is what most ranks saw",)


def test_sizes_that_do_not_make_up_the_world_are_noted() -> None:
    found = layout(Job(dp=3), lambda rank, topology: replace(topology, sizes={**topology.sizes, "tp": 2}))
    assert found.notes == (
        "the parallel axes do not make up the job: dp 3 x cp 1 x tp 2 x pp 1 is 6 ranks, the world size is 3",
    )


def test_notes_of_the_recorder_are_said_once() -> None:
    found = layout(Job(dp=3), lambda rank, topology: replace(topology, notes=("two meshes name tp",)))
    assert found.notes == ("two meshes name tp",)


def test_axes_that_a_rank_does_not_know_have_size_one() -> None:
    found = layout(Job(dp=2), lambda rank, topology: replace(topology, sizes={"dp": 2}, coordinates={"dp": rank}))
    assert found.info.sizes == {"dp": 2, "tp": 1, "pp": 1, "cp": 1, "ep": 1, "mp": 1}
    assert found.coordinates[1] == {"dp": 1, "tp": 0, "pp": 0, "cp": 0, "ep": 0, "mp": 0}
