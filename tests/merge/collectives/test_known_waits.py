"""Kinds of gaps that wait are told from others by their lengths alone."""

from __future__ import annotations

from itertools import permutations
from math import log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.arrays import IntArray
from distprof.merge.collectives.known_waits import Pairs, directions_of, log10_chance

small = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=5)


@given(st.lists(small, min_size=1, max_size=3))
def test_the_chance_is_the_share_of_permutations(groups: list[list[tuple[int, int]]]) -> None:
    """``needed`` is met by the values as they are."""
    values = [[value + more for value, more in group] for group in groups]
    needed = [[value for value, _ in group] for group in groups]
    sizes = np.array([len(group) for group in groups])
    found = log10_chance(
        np.repeat(np.arange(len(groups)), sizes), np.concatenate(values), np.concatenate(needed), sizes
    )
    for chance, own, asked in zip(found.tolist(), values, needed, strict=True):
        meeting = [all(x >= y for x, y in zip(order, asked, strict=True)) for order in permutations(own)]
        assert chance == pytest.approx(log10(sum(meeting) / len(meeting)), abs=1e-9)


STEPS = 12
ARRIVED = np.random.default_rng(3).integers(-5_000, 20_000, STEPS)
WAITING = np.maximum(ARRIVED, 0) + np.random.default_rng(4).integers(10, 500, STEPS)
ABROAD, AT_HOME = 1, 0


def pairs(arrived: IntArray, length: IntArray, other: int) -> Pairs:
    """Gaps of host 0 that may wait for a member on a host, which came ``arrived`` after they began."""
    nothing = np.zeros(len(arrived), np.int64)
    return Pairs(nothing, nothing, nothing + other, length - arrived, length, nothing == 0)


def known(abroad: tuple[IntArray, IntArray], at_home: tuple[IntArray, IntArray] | None = None) -> bool:
    """Returns whether gaps are known to wait, from when members came and how long the gaps were."""
    both = [pairs(*abroad, ABROAD), *([] if at_home is None else [pairs(*at_home, AT_HOME)])]
    names = ("kind", "own", "other", "rest_ns", "length_ns", "of_first")
    found, waits = directions_of(Pairs(*(np.concatenate([getattr(one, name) for one in both]) for name in names)))
    assert len(found.kind) == len(both)
    return bool(waits.any())


def test_lengths_that_follow_the_member_wait() -> None:
    at_home = ARRIVED - 1_000, WAITING
    assert known((ARRIVED, WAITING), at_home)
    assert known((ARRIVED + 10**9, WAITING), at_home), "whatever the clocks say"


def test_lengths_of_their_own_do_not_wait_however_long_they_are() -> None:
    own = 30_000 + np.random.default_rng(5).integers(0, 5_000, STEPS)
    assert not known((ARRIVED, own), (ARRIVED, own))


def test_few_steps_show_nothing() -> None:
    arrived, waiting = ARRIVED[:5], WAITING[:5]
    assert not known((arrived, waiting), (arrived, waiting))


def test_nothing_is_known_without_the_clock_of_one_host() -> None:
    """The gap may wait for another collective, which the same member always joins a while before this one."""
    assert not known((ARRIVED, WAITING))


def test_what_ends_before_a_member_of_its_own_host_came_does_not_wait() -> None:
    assert not known((ARRIVED, WAITING), (ARRIVED + 4_000, WAITING))


def test_two_hosts_cannot_be_behind_each_other() -> None:
    nothing = np.zeros(STEPS, np.int64)
    there, back = (
        Pairs(nothing, nothing + one, nothing + 1 - one, nothing - 5, WAITING, nothing == 0) for one in (0, 1)
    )
    both = (np.concatenate([getattr(there, name), getattr(back, name)]) for name in Pairs.__dataclass_fields__)
    assert directions_of(Pairs(*both))[0].contradicted().tolist() == [True, True]
