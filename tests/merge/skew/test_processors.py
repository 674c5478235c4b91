"""Ranks on a host with too few processors: who is slow besides what each rank waits for a processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.simulated.job import Item, SimulatedJob, Work
from support.simulated.programs import data_parallel

from distprof.merge.analyse import analyse
from distprof.merge.analysis import start_analysis
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.load.run import LoadedRun
from distprof.merge.report import NOBODY_STANDS_OUT, SLOW, SLOW_DEVICE, THROUGHOUT, RankVerdict
from distprof.merge.skew.excess import cohort_excesses
from distprof.merge.skew.processors import slow_behind_waits
from distprof.merge.skew.verdict import rank_verdict
from distprof.merge.text.blocks.verdict import rank_words
from distprof.records import CollectiveWindow, Record

RANKS, STEPS = 8, 10


#: (rank, step) -> how long a rank waits for a processor
Waits = Callable[[int, int], float]


def noisy(seed: int, mean_ms: float = 80) -> Waits:
    return lambda rank, step: float(np.random.default_rng((seed, rank, step)).exponential(mean_ms))


def busy_host(
    waits_ms: Waits,
    slow: Callable[[int], float],
    *,
    ranks: int = RANKS,
    slow_forward_ms: Callable[[int, int], float] = lambda rank, step: 0,
    seen: bool = True,
    collectives: bool = True,
) -> LoadedRun:
    """A run of a host with too few processors: each rank takes ``slow`` times as long for everything, and waits for a
    processor in all places alike.  ``slow_forward_ms`` is what it takes longer in the forward of layers.1 besides.
    """

    def program(rank: int, step: int) -> Sequence[Item]:
        items = data_parallel(slow_forward_ms)(rank, step)
        works = [item for item in items if isinstance(item, Work) and item.ms]
        each = waits_ms(rank, step) / len(works)
        return [Work(slow(rank) * item.ms + each) if item in works else item for item in items]

    def drop(rank: int, record: Record) -> bool:
        return isinstance(record, CollectiveWindow) and not collectives

    run = SimulatedJob(program, ranks, {"world": tuple(range(ranks))}, drop=drop).run()
    if not seen:
        return run
    recorded = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        waits_ns = np.array([1e6 * waits_ms(data.rank, step) for step in range(STEPS)])
        recorded.append(replace(data, windows={key: replace(window, processor_waits_ns=waits_ns)}))
    return replace(run, ranks=tuple(recorded))


def one_is_slow(rank: int) -> float:
    """Rank 2 takes 31 ms longer."""
    return 1.6 if rank == 2 else 1.0


def verdict_of(run: LoadedRun) -> RankVerdict:
    return rank_verdict(start_analysis(run))


def words_of(run: LoadedRun) -> str:
    return " ".join(rank_words(analyse(run)))


def test_a_slow_rank_is_found_behind_longer_waits_for_processors() -> None:
    found = verdict_of(busy_host(noisy(2, 40), one_is_slow))
    (one,) = found.named
    assert (found.finding, one.rank, one.subject, found.cause) == (SLOW, 2, THROUGHOUT, SLOW_DEVICE)
    assert one.excess_ns == pytest.approx(31e6, rel=0.1), "what it loses besides the waits"
    assert found.evidence.endswith("waits for a processor are left out")


def test_a_rank_whose_time_shows_nowhere_behind_waits_is_not_accused() -> None:
    """Rank 2 takes 31 ms longer, and yet others come later in nearly every step: they wait for a processor."""
    assert verdict_of(busy_host(noisy(1, 80), one_is_slow)).finding == NOBODY_STANDS_OUT


def test_of_two_ranks_the_one_that_waits_for_processors_is_not_slow() -> None:
    """Rank 1 loses 60 ms in one module; rank 0 seems slower in all others, where it waits for a processor."""
    found = verdict_of(
        busy_host(
            lambda rank, step: 100.0 if rank == 0 else 5.0,
            lambda rank: 1.0,
            ranks=2,
            slow_forward_ms=lambda rank, step: 60.0 if rank == 1 else 0.0,
        )
    )
    assert [(one.rank, one.subject) for one in found.named] == [(1, "layers.1")]


def test_waits_for_processors_hide_it_where_they_were_not_seen() -> None:
    assert verdict_of(busy_host(noisy(1), one_is_slow, seen=False)).finding == NOBODY_STANDS_OUT


def test_in_a_healthy_run_nobody_is_slow_behind_waits_for_processors() -> None:
    named = [verdict_of(busy_host(noisy(seed), lambda rank: 1.0)).named for seed in range(20)]
    assert named == [()] * 20


@pytest.mark.parametrize("collectives", [True, False])
def test_nobody_is_found_behind_waits_where_own_times_are_not_known(collectives: bool) -> None:
    """Rank 5 waits for the others instead of a processor, and would seem to compute meanwhile."""

    def waits_ms(rank: int, step: int) -> float:
        return 0.0 if rank == 5 else 60.0 + noisy(1)(rank, step) / 40

    analysis = start_analysis(busy_host(waits_ms, lambda rank: 1.0, collectives=collectives))
    assert bool(why_no_own_times(analysis)) != collectives
    assert list(slow_behind_waits(analysis, cohort_excesses(analysis), 120e6)) == []


def one_waits(ms: float) -> Waits:
    """Rank 2 has a host with other work, and waits longer."""
    return lambda rank, step: noisy(3)(rank, step) / 8 + ms * (rank == 2)


def test_what_a_named_rank_loses_is_told_from_what_it_waits_for_a_processor() -> None:
    """By its own times, rank 2 takes 230 ms longer."""
    found = verdict_of(run := busy_host(one_waits(200), one_is_slow))
    (one,) = found.named
    assert (found.finding, one.rank, one.subject, one.waits_apart) == (SLOW, 2, THROUGHOUT, True)
    assert one.excess_ns == pytest.approx(31e6, abs=10e6)
    assert one.processor_wait_ns == pytest.approx(200e6, abs=10e6)
    assert found.cost_ns is not None and found.cost_ns < 45e6, "what its waits cost is not its own"
    assert "of longer waits for a processor" in words_of(run)


def test_what_is_lost_in_one_module_may_hold_waits() -> None:
    found = verdict_of(
        run := busy_host(one_waits(40), lambda rank: 1.0, slow_forward_ms=lambda rank, step: 120.0 * (rank == 2))
    )
    (one,) = found.named
    assert (one.rank, one.subject, one.phase, one.waits_apart) == (2, "layers.1", "forward", False)
    assert one.excess_ns >= 120e6
    assert "may be longer waits for a processor" in words_of(run)


def test_ranks_that_wait_alike_lose_nothing_apart() -> None:
    (one,) = verdict_of(run := busy_host(lambda rank, step: 20.0, one_is_slow)).named
    assert (one.rank, one.processor_wait_ns) == (2, 0)
    assert "longer waits" not in words_of(run)


def woken_late(others_ms: float) -> LoadedRun:
    """Rank 2 waits 9 ms longer for a processor, 8 of them in layers.1; in each step another rank takes ``others_ms``
    longer.
    """

    def late(rank: int, step: int) -> float:
        return 8.0 if rank == 2 else others_ms * (rank == 3 + step % 5)

    run = busy_host(lambda rank, step: 1.0, lambda rank: 1.0, slow_forward_ms=late)
    recorded = []
    for data in run.ranks:
        ((key, window),) = data.windows.items()
        waits_ns = window.processor_waits_ns + 9e6 * (data.rank == 2)
        recorded.append(replace(data, windows={key: replace(window, processor_waits_ns=waits_ns)}))
    return replace(run, ranks=tuple(recorded))


def test_a_loss_that_may_be_waits_is_named_only_if_it_costs() -> None:
    assert [one.rank for one in verdict_of(woken_late(0)).named] == [2]
    assert verdict_of(woken_late(40)).finding == NOBODY_STANDS_OUT
