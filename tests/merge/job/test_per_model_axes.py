"""Two models in one job: each by its own axes, or no figure at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Report
from distprof.merge.text.deepspeed.model import work_lines
from distprof.records import Counts, ModuleRow, OwnAxes, Parameters, Record, Topology, Tree
from distprof.shard.reader import Shard

#: The job's model: every matrix cut over tp.
JOB = Job(dp=2, tp=2, experts=0, noise=0)
ALONE = analyse(run_of_shards(shard_of(rank_records(JOB, rank)) for rank in range(JOB.world)))

Bend = Callable[[int, Record], Record]


def as_it_is(rank: int, record: Record) -> Record:
    return record


def with_another(tp: int, bend: Bend = as_it_is) -> Report:
    """The report of a job that trains the model once more, as number 1, on dp 4 / tp x tp."""
    ranks = ([bend(rank, one) for one in _of_two(rank, tp)] for rank in range(JOB.world))
    return analyse(run_of_shards([shard_of(records) for records in ranks]))


def _of_two(rank: int, tp: int) -> Iterator[Record]:
    for record in rank_records(JOB, rank):
        if isinstance(record, Topology):
            yield replace(record, roots=(_axes(tp, rank),) if tp != JOB.tp else ())
        elif isinstance(record, Tree):
            rows = len(record.rows)
            yield replace(record, rows=record.rows + tuple(_second(row, rows) for row in record.rows))
        elif isinstance(record, Parameters):
            yield record
            own = (replace(p, root=1, row=p.row + rows) for p in record.parameters)
            yield Parameters(1, tuple(own))
        elif isinstance(record, Counts):
            yield replace(record, **{name: _twice(getattr(record, name), JOB.tp / tp) for name in _WORK})
        else:
            yield record


_WORK = ["calls", *(f"{kind}_{unit}" for kind in ("forward", "backward", "recompute") for unit in ("macs", "flops"))]


def _axes(tp: int, rank: int) -> OwnAxes:
    sizes = {"dp": JOB.world // tp, "tp": tp, "pp": 1, "cp": 1, "ep": 1, "mp": tp}
    places = {"dp": rank // tp, "tp": rank % tp, "pp": 0, "cp": 0, "ep": 0, "mp": rank % tp}
    return OwnAxes(1, sizes, places)


def _second(row: ModuleRow, shift: int) -> ModuleRow:
    return replace(row, root=1, parent=row.parent + shift if row.parent >= 0 else -1)


def _twice(work: Any, factor: float) -> Any:
    return np.concatenate([work, (work * factor).astype(work.dtype)])


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_the_work_of_each_model_is_divided_by_its_own_axes(tp: int) -> None:
    alone, both = ALONE.model.forward, with_another(tp).model.forward
    assert alone is not None and both is not None and both.covers_all
    assert (both.macs, both.useful_macs, both.executed_macs) == (2 * alone.macs,) * 3


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_what_the_ranks_of_both_models_do_is_all_their_own(tp: int) -> None:
    """No matrix is whole on two ranks of either: MFU counts all that ran."""
    assert with_another(tp).utilization.model_flops_per_rank == ALONE.utilization.model_flops_per_rank


def no_work(report: Report) -> str:
    assert report.model.forward is None
    (line,) = work_lines(report)
    return " ".join(line.split())


def test_where_a_rank_does_not_tell_its_axes_there_is_no_exact_work() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, roots=()) if isinstance(record, Topology) and rank == 3 else record

    why = "models are on different meshes, and those of GPT do not cover 4 ranks"
    assert no_work(with_another(4, bend)) == f"fwd MACs of model, exact: n/a: {why}"


def test_where_ranks_contradict_each_other_there_is_no_exact_work() -> None:
    def bend(rank: int, record: Record) -> Record:
        return replace(record, roots=(_axes(4, 0),)) if isinstance(record, Topology) else record

    assert "n/a: models are on different meshes" in no_work(with_another(4, bend))


def test_experts_that_the_axes_of_the_job_place_are_said_to_be() -> None:
    job = Job(dp=2, tp=2, ep=2, noise=0)

    def shards(*own: OwnAxes) -> list[Shard]:
        ranks = (rank_records(job, rank) for rank in range(job.world))
        return [shard_of(replace(r, roots=own) if isinstance(r, Topology) else r for r in records) for records in ranks]

    said = "GPT has a mesh of its own, but which of its experts a rank hosts is derived from the axes of the job"
    sizes = {"dp": 4, "tp": 1, "pp": 1, "cp": 1, "ep": 4, "mp": 1}
    own = OwnAxes(0, sizes, dict.fromkeys(sizes, 0))
    assert any(said in note for note in analyse(run_of_shards(shards(own))).run.notes)
    assert not any(said in note for note in analyse(run_of_shards(shards())).run.notes)


def test_models_of_some_ranks_alone_are_not_averaged_over_all() -> None:
    """One half of the world trains another model than the other."""

    def bend(rank: int, record: Record) -> Record:
        if isinstance(record, Tree) and rank >= 2:
            rows = (replace(row, class_name=row.class_name if row.name else "Critic") for row in record.rows)
            return replace(record, rows=tuple(rows))
        return record

    shards = [shard_of(bend(rank, one) for one in rank_records(JOB, rank)) for rank in range(JOB.world)]
    why = "only ranks 0-1 of its data-parallel ranks ran GPT"
    assert no_work(analyse(run_of_shards(shards))) == f"fwd MACs of model, exact: n/a: {why}"
