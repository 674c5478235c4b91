"""Process groups that no axis accounts for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.records import Group, Mesh, Record, Topology

PAIRS, STRIDED = [(0, 1), (2, 3), (4, 5), (6, 7)], [(0, 2, 4, 6), (1, 3, 5, 7)]


def notes(groups: Sequence[tuple[int, ...]], description: str = "undefined", **job: Any) -> list[str]:
    made = Job(**{"steps": 1, "source": "assumed", **job})

    def records(rank: int) -> Iterator[Record]:
        for record in rank_records(made, rank):
            own = tuple(Group(f"{n}", description, ranks) for n, ranks in enumerate(groups) if rank in ranks)
            meshes = (Mesh(("rows",), (2,), (0,)),)
            yield replace(record, groups=own, meshes=meshes) if isinstance(record, Topology) else record

    found = analyse(run_of_shards([shard_of(records(rank)) for rank in range(made.world)]))
    return [note for note in found.run.notes if "purpose is not known" in note]


def test_they_are_listed_with_what_to_say() -> None:
    (note,) = notes([*PAIRS, *STRIDED], dp=8)
    assert "4 of 2 ranks (0-1; 2-3; 4-5; 6-7), 2 of 4 ranks (0, 2, 4, 6; 1, 3, 5, 7);" in note
    assert note.endswith("say so: distprof.set_topology(tp=2) or distprof.set_topology(pp=4)")
    (odd,) = notes([(0, 3), (1, 2)], dp=4)
    assert odd.endswith('distprof.set_topology(tp=2, coordinates={"tp": ...})')


@pytest.mark.parametrize(
    "job",
    [
        {"dp": 4, "tp": 2, "source": "device_mesh"},
        {"dp": 8, "source": "declared"},
        {"dp": 8, "source": "megatron"},
    ],
)
def test_those_along_a_known_axis_or_of_a_stack_that_tells_all_are_not(job: dict[str, Any]) -> None:
    assert notes([*PAIRS, *STRIDED], **job) == []


def test_the_world_a_single_rank_and_what_a_mesh_has_named_are_not() -> None:
    assert notes([(), (0,), tuple(range(8))], dp=8) == []
    assert notes(PAIRS, "mesh_rows", dp=8) == []
