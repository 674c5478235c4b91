"""A run with several windows says whether the same ranks are slow in all of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

import pytest
from support.synthetic import Job, rank_records, shard_of

from distprof.merge.analyse import analyse
from distprof.merge.load.run import LoadedRun, run_of_shards
from distprof.merge.report import NOBODY_STANDS_OUT, SLOW
from distprof.merge.text.blocks.verdict import verdict
from distprof.records import End, Plan, Record, Step

LATER = 100


def records_of(rank: int, slow: Collection[int], few: Collection[int]) -> list[Record]:
    """Returns the records of four windows: rank 2 is slow in those of ``slow``; those of ``few`` have two steps."""
    opening: list[Record] = []
    steps: list[Record] = []
    for window in range(4):
        job = Job(
            dp=4, layers=1, experts=0, slow_rank=2 if window in slow else None, slow_module="blocks.0.mlp", seed=window
        )
        own = rank_records(replace(job, steps=2 if window in few else 5), rank)
        opening = opening or [one for one in own if not isinstance(one, Plan | Step | End)]
        plans = [replace(one, window=window) for one in own if isinstance(one, Plan)]
        steps += plans
        steps += [
            replace(one, window=window, iteration=one.iteration + LATER * window)
            for one in own
            if isinstance(one, Step)
        ]
    return [opening[0], *steps[:1], *opening[1:], *steps[1:], End("window complete", 1000)]


@lru_cache(maxsize=8)
def run_of(slow: tuple[int, ...], few: tuple[int, ...] = ()) -> LoadedRun:
    return run_of_shards([shard_of(records_of(rank, slow, few)) for rank in range(4)])


@pytest.mark.parametrize(
    ("slow", "few", "shown", "again", "words"),
    [
        ((0, 2, 3), (), 3, (0, 2, 3), "; slow in 3 of 4 windows"),
        ((2,), (), 2, (2,), "; only in window 2 of 4"),
        ((0, 1, 2, 3), (0,), 3, (1, 2, 3), "; slow in 3 of 3 windows"),
    ],
)
def test_a_slow_rank(
    slow: tuple[int, ...], few: tuple[int, ...], shown: int, again: tuple[int, ...], words: str
) -> None:
    report = analyse(run_of(slow, few), window=shown)
    found = report.verdict.ranks
    assert (found.finding, [one.rank for one in found.named]) == (SLOW, [2])
    assert found.windows_again == again
    assert [(one.window, one.ranks) for one in found.windows] == [
        (window, (2,) if window in slow else ()) for window in range(4) if window not in few
    ]
    assert words in " ".join(verdict(report))


def test_a_window_without_a_slow_rank_tells_of_the_others() -> None:
    report = analyse(run_of((0, 2, 3)), window=1)
    found = report.verdict.ranks
    assert (found.finding, found.windows_again) == (NOBODY_STANDS_OUT, ())
    words = " ".join(verdict(report))
    assert words.endswith("; ranks stood out in window 0 (rank 2), window 2 (rank 2), window 3 (rank 2).")


def test_a_verdict_is_the_same_beside_other_windows_and_alone() -> None:
    several = analyse(run_of((0, 2, 3)), window=3).verdict.ranks
    alone = run_of_shards(
        [
            shard_of(
                replace(one, window=0) if isinstance(one, Plan | Step) else one
                for one in records_of(rank, (0, 2, 3), ())
                if not isinstance(one, Plan | Step) or one.window == 3
            )
            for rank in range(4)
        ]
    )
    assert analyse(alone).verdict.ranks == replace(several, windows=(), windows_again=())
    assert analyse(alone).verdict.ranks.windows == ()
