"""Tests of who is named after many looks: chance names nobody, and a slow rank is named once."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from distprof.launcher.daemon.slow_rank.arrivals import Look
from distprof.launcher.daemon.slow_rank.history import LAST, LEAST, History, Slowest, at_least

RANKS = range(4)


class Looks:
    """Four looks a second, each at another iteration."""

    def __init__(self) -> None:
        self.history = History()
        self.number = 0
        self.names: list[int | None] = []  # each other rank that was named, and None where that ended

    def add(self, slowest: Iterable[int | None], compared: int = 4, looks: int = 1) -> Slowest | None:
        """``looks``: at each iteration."""
        for rank in slowest:
            self.number += 1
            waiting = frozenset(RANKS) - {rank} if rank is not None else frozenset[int]()
            for _ in range(looks):
                self.history.add(Look(self.number, rank, float(rank is not None), compared, waiting), self.number / 4)
            named = self.history.named.rank if self.history.named is not None else None
            if not self.names or self.names[-1] != named:
                self.names.append(named)
        return self.history.named


def drawn(seed: int, number: int, shares: dict[int | None, float]) -> list[int | None]:
    return random.Random(seed).choices(list(shares), list(shares.values()), k=number)


def test_a_slow_rank_is_named_with_what_was_seen() -> None:
    looks = Looks()
    assert looks.add([2, None, None] * (LEAST - 1)) is None
    found = looks.add([2, None, None, None])
    assert found is not None and found == Slowest(2, LEAST, LEAST, found.lost)
    assert found.lost == pytest.approx(1 / 3, abs=0.01)
    looks.add([2, None] * (3 * LAST) + [None])
    assert looks.names == [None, 2] and looks.history.named is not None
    assert (looks.history.named.iterations, looks.history.named.sampled) == (LAST, LAST)
    of_one, of_two = (looks.history.looks(RANKS, looks.number / 4)[rank] for rank in (1, 2))
    assert (of_one.slowest, of_two.slowest, of_two.sampled) == (0, LAST, LAST)
    assert of_two.is_named and not of_one.is_named
    assert of_two.wait_share == 0 and of_one.wait_share == pytest.approx(0.5, abs=0.05)


def test_one_that_is_slowest_in_most_iterations_but_not_in_all() -> None:
    looks = Looks()
    looks.add(drawn(0, 800, {None: 0.5, 2: 0.4, 0: 0.04, 1: 0.03, 3: 0.03}))
    assert looks.names == [None, 2]


@pytest.mark.parametrize("compared", [2, 4])
def test_equal_ranks_are_not_named(compared: int) -> None:
    """In a quarter of an hour of looks."""
    looks = Looks()
    looks.add(drawn(compared, 3_600, dict.fromkeys(range(compared), 1.0)), compared)
    assert looks.names == [None]


def test_a_small_loss_is_not_named() -> None:
    """Rank 0 is always the last one, and the others hardly wait for it."""
    looks = Looks()
    looks.add(drawn(1, 2_000, {None: 0.98, 0: 0.02}))
    assert looks.names == [None]


def test_it_ends_once_and_does_not_come_again_and_again() -> None:
    looks = Looks()
    looks.add(drawn(2, 400, {None: 0.8, 1: 0.2}))
    looks.add(drawn(3, 2_000, {None: 0.8, 0: 0.05, 1: 0.05, 2: 0.05, 3: 0.05}))
    assert looks.names == [None, 1, None]


def test_it_ends_where_nobody_waits_any_more() -> None:
    looks = Looks()
    looks.add([1] * 100)
    looks.add([None] * 1_000)
    assert looks.names[-2:] == [1, None]


def test_a_rank_at_the_limit_is_not_named_again_and_again() -> None:
    """6 % of the time is lost, near the 5 % from which a rank is named."""
    looks = Looks()
    looks.add(drawn(0, 3_600, {None: 0.93, 1: 0.06, 0: 0.005, 2: 0.005}))
    assert 2 <= len(looks.names) <= 4


def test_another_rank_takes_its_place() -> None:
    looks = Looks()
    looks.add([1] * 100)
    looks.add([3] * 200)
    assert [name for name in looks.names if name is not None] == [1, 3]


def test_long_iterations_count_once_however_often_they_are_looked_at() -> None:
    looks = Looks()
    assert looks.add([2] * LEAST, looks=40) is None
    assert looks.add([2], looks=40) == Slowest(2, LEAST, LEAST, 1.0)


def test_the_probability_of_hits() -> None:
    assert at_least(0, 5, 0.3) == pytest.approx(1)
    assert at_least(5, 5, 0.5) == pytest.approx(1 / 32)
    assert at_least(4, 5, 0.5) == pytest.approx(6 / 32)
