"""Evaluations in timed steps, and their effect on throughput."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.reports import changed_report

from distprof.merge.report import Summary
from distprof.records import Record, Step

MS = 1_000_000
TRAINED, EVALUATED = 10 * MS, 40 * MS


def summary(*evaluating: int, only_rank: int | None = None) -> Summary:
    """The summary of two ranks with 10 steps of 10 ms; those with numbers in ``evaluating`` take 40 ms more.

    With ``only_rank``, the other rank waits for these 40 ms in its backward.
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

    return changed_report(timed, dp=2, steps=10).summary


def with_pauses(*places: int) -> Summary:
    """Returns the summary of four ranks with 10 steps of 100 ms; those at ``places`` pause for 400 ms more."""
    first: dict[int, int] = {}

    def timed(rank: int, record: Record) -> Record:
        if not isinstance(record, Step):
            return record
        place = record.iteration - first.setdefault(rank, record.iteration)
        return replace(record, duration_ns=(500 if place in places else 100) * MS)

    return changed_report(timed, dp=4, steps=10, batch=8).summary


def test_pauses_lower_the_throughput() -> None:
    """Three pauses in ten steps: 320 samples in 2.2 s, and not the 32 in 100 ms of the median iteration."""
    found = with_pauses(2, 5, 6)
    assert found.samples_per_second == pytest.approx(320 / 2.2)
    assert found.samples_per_second_at_median == pytest.approx(320)
    times = found.iterations
    assert times is not None
    assert (times.steps, times.median_ns, times.mean_ns, times.max_ns) == (10, 100 * MS, 220 * MS, 500 * MS)
    assert times.p95_ns == pytest.approx(500 * MS)
    first = times.long[0] - 2
    assert times.long == (first + 2, first + 5, first + 6)


def tokens_of(change: Callable[[int, Step], int], **job: Any) -> Summary:
    """Returns the summary of a job whose steps have so many tokens, by (rank, step)."""

    def changed(rank: int, record: Record) -> Record:
        return replace(record, tokens=change(rank, record)) if isinstance(record, Step) else record

    return changed_report(changed, steps=4, **job).summary


def test_tokens_are_those_of_all_replicas() -> None:
    """Two replicas of two tensor-parallel ranks, which get the same ids."""
    found = tokens_of(lambda rank, step: 100 * (1 + rank // 2), dp=2, tp=2)
    assert found.tokens_per_iteration == 2 * 150 and found.iterations is not None
    assert found.tokens_per_second == pytest.approx(300 / found.iterations.mean_ns * 1e9)


def test_without_ids_there_are_no_tokens() -> None:
    found = tokens_of(lambda rank, step: 0 if (rank, step.iteration % 4) == (1, 0) else 50, dp=2)
    assert found.tokens_per_iteration is found.tokens_per_second is None
    assert "holds no ids" in found.unavailable["tokens_per_second"]


def test_without_pauses_both_throughputs_agree() -> None:
    found = with_pauses()
    assert found.iterations and found.iterations.long == ()
    assert found.samples_per_second == found.samples_per_second_at_median == pytest.approx(320)


@pytest.mark.parametrize(("evaluating", "iteration"), [((), 10), ((3,), 14), (tuple(range(6)), 34), (range(10), 50)])
@pytest.mark.parametrize("only_rank", [None, 0])
def test_iteration_time_weighs_steps_with_evaluation(
    evaluating: tuple[int, ...], iteration: float, only_rank: int | None
) -> None:
    found = summary(*evaluating, only_rank=only_rank)
    assert found.samples_per_iteration is not None
    assert found.samples_per_second == pytest.approx(found.samples_per_iteration / iteration * 1e3)
    assert (found.evaluations.steps, found.evaluations.timed_steps) == (len(evaluating), 10)
    time = found.evaluations.time_ns
    assert (None if time is None else time.median) == (EVALUATED if evaluating else None)
