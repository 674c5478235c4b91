"""Which ranks do equal work."""

from __future__ import annotations

from dataclasses import replace

from support.reports import report_of
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analysis import start_analysis
from distprof.merge.load.run import run_of_shards
from distprof.records import Record, Tree


def cohorts(job: Job, uneven: bool = False) -> list[int]:
    """``uneven``: rank 1 holds a larger piece of its last module."""

    def bend(rank: int, record: Record) -> Record:
        if not (uneven and rank == 1 and isinstance(record, Tree)):
            return record
        *rows, last = record.rows
        return replace(record, rows=(*rows, replace(last, own_params=last.own_params + 1)))

    shards = [shard_of([bend(rank, one) for one in rank_records(job, rank)]) for rank in range(job.world)]
    return list(start_analysis(run_of_shards(shards)).cohorts.values())


def test_replicas_are_a_cohort_and_stages_are_apart() -> None:
    assert cohorts(Job(dp=4)) == [0, 0, 0, 0]
    assert cohorts(Job(dp=2, pp=2)) == [0, 0, 1, 1]


def test_tensor_parallel_ranks_with_equal_pieces_are_compared() -> None:
    assert cohorts(Job(dp=2, tp=2)) == [0, 0, 0, 0]
    assert cohorts(Job(dp=2, tp=2, pp=2)) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_tensor_parallel_ranks_with_unequal_pieces_are_not() -> None:
    assert cohorts(Job(dp=2, tp=2), uneven=True) == [0, 1, 0, 1]


def test_the_report_has_the_same_cohorts() -> None:
    assert [row.cohort for row in report_of(dp=2, tp=2, pp=2).ranks] == [0, 0, 0, 0, 1, 1, 1, 1]
