"""Sides of comparisons for tests: synthetic runs, and runs in which the forward of one module takes longer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from support.synthetic import Job, in_memory, rank_records, shard_of

from distprof.merge.analysis import start_analysis
from distprof.merge.diff.samples import Side, side_of
from distprof.merge.load.run import run_of_shards
from distprof.records import Record, Step, Tree

JOB: dict[str, Any] = {"dp": 4, "layers": 4, "steps": 12, "noise": 0.02}


@lru_cache(maxsize=16)
def side(**job: Any) -> Side:
    """Returns a run as a side of a comparison."""
    return side_of(start_analysis(run_of_shards(in_memory(Job(**{**JOB, **job})))))


def changed_side(module: str, factor: float, *, seed: int = 1, waited: float | None = None) -> Side:
    """Returns a run in which the forward of one module takes ``factor`` times as long, on all ranks."""
    job = Job(**JOB, seed=seed)

    def records(rank: int) -> list[Record]:
        every = rank_records(job, rank)
        (row,) = [
            number
            for one in every
            if isinstance(one, Tree)
            for number, row in enumerate(one.rows)
            if row.name == module
        ]
        return [_slower(one, row, factor, waited) if isinstance(one, Step) else one for one in every]

    return side_of(start_analysis(run_of_shards([shard_of(records(rank)) for rank in range(job.world)])))


def _slower(step: Step, row: int, factor: float, waited: float | None) -> Step:
    forward = step.forward_ns.copy()
    more = int(forward[row] * (factor - 1))
    forward[row] += more
    phases = {**step.phases_ns, "forward": step.phases_ns["forward"] + more}
    duration = step.duration_ns + more
    return replace(
        step,
        forward_ns=forward,
        phases_ns=phases,
        duration_ns=duration,
        processor_wait_seen=waited is not None,
        processor_wait_ns=int(duration * (waited or 0)),
    )
