"""Layers that each pipeline stage counts from 0: their numbers in the model, or the reason why those are not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.records import ModuleRow, Parameters, Record, Stage, Topology, Tree

Bend = Callable[[int, Record], Record]
#: Four dense blocks on two stages.
JOB = Job(dp=1, pp=2, layers=4, experts=0, noise=0, local_names=True)


def merged(job: Job, bend: Bend = lambda rank, record: record, ranks: Iterable[int] | None = None) -> Report:
    every = range(job.world) if ranks is None else ranks
    return analyse(
        run_of_shards([shard_of(bend(rank, record) for record in rank_records(job, rank)) for rank in every])
    )


def labels(report: Report) -> list[str]:
    return [module.label for module in report.modules]


def notes(report: Report) -> list[str]:
    return [note for note in report.run.notes if "pipeline stage" in note]


@pytest.mark.parametrize("job", [JOB, Job(dp=2, pp=4, ep=2, layers=12, noise=0, local_names=True, shared_expert=True)])
def test_the_report_is_that_of_a_model_that_keeps_its_own_numbers(job: Job) -> None:
    """Rows, sizes, experts and skew: all but the note."""
    found, named = merged(job), merged(replace(job, local_names=False))
    kept = replace(found.run, notes=named.run.notes)
    assert replace(found, run=kept) == named
    per_stage = job.layers // job.pp
    (note,) = notes(found)
    assert note.endswith(f"blocks.0 of stage 1 is blocks.{per_stage}")
    assert not any("[stage" in label for label in labels(found))


def test_stages_that_differ_in_length_follow_each_other() -> None:
    """A rank holds stages 0 and 2, the other 1 and 3: of one, two, no and one blocks."""
    sizes = [1, 2, 0, 1]

    def bend(rank: int, record: Record) -> Record:
        if isinstance(record, Tree):
            rows = [row for root in (0, 1) for row in _stage_rows(root, sizes[rank + 2 * root])]
            firsts = {root: next(i for i, row in enumerate(rows) if row.root == root) for root in (0, 1)}
            return Tree(0, tuple(replace(r, parent=r.parent + firsts[r.root] if r.parent >= 0 else -1) for r in rows))
        if isinstance(record, Parameters):
            return replace(record, parameters=())
        if isinstance(record, Topology):
            return replace(record, stages=(Stage(0, rank, 4), Stage(1, rank + 2, 4)))
        return record

    job = replace(JOB, counted=False, steps=0)
    assert labels(merged(job, bend)) == ["GPT", "layers", *(f"layers.{number}" for number in range(4))]


def _stage_rows(root: int, size: int) -> list[ModuleRow]:
    own = [ModuleRow(f"layers.{number}", "Block", root, 1, 2) for number in range(size)]
    return [ModuleRow("", "GPT", root, -1, 0), *([ModuleRow("layers", "ModuleList", root, 0, 1)] if own else []), *own]


def renamed(**classes: str) -> Bend:
    """Another class for some rows of the second stage, by their names with _ for the dots."""

    def bend(rank: int, record: Record) -> Record:
        if rank == 1 and isinstance(record, Tree):
            rows = (
                replace(row, class_name=classes.get(row.name.replace(".", "_"), row.class_name)) for row in record.rows
            )
            return replace(record, rows=tuple(rows))
        return record

    return bend


def counted_from(first: int) -> Bend:
    """The second stage counts its two blocks from ``first``."""

    def other(name: str) -> str:
        return name.replace("blocks.1", f"blocks.{first + 1}").replace("blocks.0", f"blocks.{first}")

    def bend(rank: int, record: Record) -> Record:
        if rank == 1 and isinstance(record, Tree):
            return replace(record, rows=tuple(replace(row, name=other(row.name)) for row in record.rows))
        return record

    return bend


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (renamed(blocks_1="Decoder"), "they are of several classes (Block, Decoder)"),
        (counted_from(1), "a stage does not count them from 0"),
    ],
)
def test_where_the_numbers_are_not_known_stages_are_named_and_the_reason(bend: Bend, why: str) -> None:
    found = merged(JOB, bend)
    assert notes(found) == [
        "several pipeline stages give the same numbers to the layers in blocks; which they have in the model is not "
        f"known ({why}): they are told apart by stage"
    ]
    assert {"blocks.1 [stage 0]", "blocks.1 [stage 1]"} <= {*labels(found)}


def test_with_a_dead_stage_the_numbers_are_not_known() -> None:
    job = replace(JOB, pp=3, layers=6)
    found = merged(job, ranks=[0, 2])
    assert "(nothing was recorded of stage 1)" in notes(found)[0]
    assert {"blocks.0 [stage 0]", "blocks.0 [stage 2]"} <= {*labels(found)}


def test_a_replica_of_a_stage_that_has_fewer_layers_leaves_the_numbers_open() -> None:
    def bend(rank: int, record: Record) -> Record:
        if rank == 1 and isinstance(record, Tree):
            return replace(record, rows=tuple(row for row in record.rows if not row.name.startswith("blocks.1")))
        return record

    job = replace(JOB, dp=2, counted=False, steps=0)
    assert "(ranks of one stage do not have the same)" in notes(merged(job, bend))[0]


def test_numbers_that_are_the_models_are_left_alone() -> None:
    assert notes(merged(replace(JOB, local_names=False))) == []
