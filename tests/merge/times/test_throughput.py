"""Evaluations among the timed steps, and what they leave of throughput."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import run_of_shards
from distprof.merge.report import Summary
from distprof.records import Record, Step

MS = 1_000_000
TRAINED, EVALUATED = 10 * MS, 40 * MS


def summary(*evaluating: int, only_rank: int | None = None) -> Summary:
    """Of two ranks, whose steps with these places take 50 ms and all others 10; the rank that evaluates alone is waited
    for by the other, in its backward.
    """
    first: dict[int, int] = {}

    def timed(rank: int, record: Record) -> Record:
        if not isinstance(record, Step):
            return record
        place = record.iteration - first.setdefault(rank, record.iteration)
        extra = EVALUATED if place in evaluating else 0
        own = only_rank in (None, rank)
        phases = dict.fromkeys(record.phases_ns, 0) | {"backward": TRAINED + (0 if own else extra)}
        phases["evaluation"] = extra if own else 0
        return replace(record, phases_ns=phases, duration_ns=sum(phases.values()))

    job = Job(dp=2, steps=10)
    ranks = [shard_of(timed(rank, record) for record in rank_records(job, rank)) for rank in range(2)]
    return analyse(run_of_shards(ranks)).summary


@pytest.mark.parametrize(("evaluating", "iteration"), [((), 10), ((3,), 14), (tuple(range(6)), 34), (range(10), 50)])
@pytest.mark.parametrize("only_rank", [None, 0])
def test_each_kind_of_step_has_its_share(evaluating: tuple[int, ...], iteration: float, only_rank: int | None) -> None:
    found = summary(*evaluating, only_rank=only_rank)
    assert found.samples_per_iteration is not None
    assert found.samples_per_second == pytest.approx(found.samples_per_iteration / iteration * 1e3)
    assert (found.evaluations.steps, found.evaluations.timed_steps) == (len(evaluating), 10)
    time = found.evaluations.time_ns
    assert (None if time is None else time.median) == (EVALUATED if evaluating else None)
