"""The measures of load balance: closed forms, and what must hold for any loads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.experts.metrics import by_step, entropies, load_metrics, max_violations, trend
from distprof.merge.report import LoadMetrics

LOADS = st.lists(st.integers(0, 10**9), min_size=2, max_size=64).filter(any)


def metrics(loads: list[int] | list[float]) -> LoadMetrics:
    found = load_metrics(loads)
    assert found is not None
    return found


def values(found: LoadMetrics) -> tuple[float, ...]:
    return found.max_over_mean, found.max_violation, found.cv, found.entropy, found.gini


@pytest.mark.parametrize("experts", [1, 2, 8, 256])
def test_equal_loads(experts: int) -> None:
    assert values(metrics([7] * experts)) == pytest.approx((1, 0, 0, 1, 0), abs=1e-9)


@pytest.mark.parametrize("experts", [2, 8, 256])
def test_all_tokens_at_one_expert(experts: int) -> None:
    found = metrics([0] * (experts - 1) + [5])
    expected = (experts, experts - 1, math.sqrt(experts - 1), 0, (experts - 1) / experts)
    assert values(found) == pytest.approx(expected, abs=1e-9)
    assert (found.hottest, found.coldest) == (experts - 1, 0)


def test_loads_of_1_to_n_have_closed_forms() -> None:
    """Sums of the first n numbers and of their squares."""
    number = 100
    found = metrics(list(range(1, number + 1)))
    mean, squares = (number + 1) / 2, (number + 1) * (2 * number + 1) / 6
    assert found.max_over_mean == pytest.approx(number / mean, abs=1e-9)
    assert found.cv == pytest.approx(math.sqrt(squares - mean**2) / mean, abs=1e-9)
    # sum_ij |i - j| of 1 ... n is n (n^2 - 1) / 3
    assert found.gini == pytest.approx(number * (number**2 - 1) / 3 / (2 * number**2 * mean), abs=1e-9)
    shares = [one / (number * mean) for one in range(1, number + 1)]
    assert found.entropy == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(number), abs=1e-9)


@given(LOADS, st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_matter(loads: list[int], random: object) -> None:
    shuffled = list(loads)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert values(metrics(shuffled)) == pytest.approx(values(metrics(loads)), rel=1e-9, abs=1e-9)


@given(LOADS, st.integers(2, 1000))
def test_the_number_of_tokens_does_not_matter(loads: list[int], factor: int) -> None:
    scaled = metrics([factor * load for load in loads])
    assert values(scaled) == pytest.approx(values(metrics(loads)), rel=1e-9, abs=1e-9)


@given(LOADS)
def test_bounds(loads: list[int]) -> None:
    found, experts = metrics(loads), len(loads)
    assert 1 - 1e-9 <= found.max_over_mean <= experts + 1e-9
    assert found.max_violation == pytest.approx(found.max_over_mean - 1)
    assert -1e-9 <= found.gini <= (experts - 1) / experts + 1e-9
    assert 0 <= found.entropy <= 1
    assert loads[found.hottest] == max(loads) and loads[found.coldest] == min(loads)


def test_unknown_loads_are_left_out() -> None:
    found = load_metrics([None, 1, None, 3])
    assert found is not None and (found.hottest, found.coldest) == (3, 1)
    assert values(found) == pytest.approx(values(metrics([1, 3])))


@pytest.mark.parametrize("loads", [[], [None, None], [0, 0]])
def test_nothing_is_said_without_tokens(loads: list[float | None]) -> None:
    assert load_metrics(loads) is None


def test_rows_are_as_single_loads() -> None:
    rows = np.array([[1.0, 2, 3], [0, 0, 0], [np.nan, 1, 3], [np.nan] * 3])
    for row, violation, entropy in zip(rows, max_violations(rows), entropies(rows), strict=True):
        found = load_metrics([None if np.isnan(load) else load for load in row.tolist()])
        expected = (math.nan, math.nan) if found is None else (found.max_violation, found.entropy)
        assert (violation, entropy) == pytest.approx(expected, nan_ok=True)


def test_a_trend_is_told_from_noise() -> None:
    assert trend(list(range(10))) == 1
    assert trend([-value for value in range(10)]) == -1
    assert trend([1.0] * 10) == 0, "ties"
    assert trend([5, 3, 6, 2, 7, 1, 6, 4, 5, 3]) == 0
    assert trend(list(range(7))) == 0, "too few"


def test_the_level_of_a_trend_is_one_percent() -> None:
    random = np.random.default_rng(0)
    found = [trend(random.normal(size=10).tolist()) for _ in range(4000)]
    assert np.count_nonzero(found) / 4000 < 0.015


def test_a_trend_is_that_of_kendall() -> None:
    """Its 1 % level for 10 values is a sum of 29 pairs of 45 (tables of the exact distribution: 0.0083 at 29)."""
    assert trend([0, 1, 2, 3, 4, 5, 6, 9, 8, 7]) == 1  # 45 - 2 x 3 = 39
    reversed_tail = [0, 1, 2, 3, 9, 8, 7, 6, 5, 4]  # 45 - 2 x 15 = 15
    assert trend(reversed_tail) == 0


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=5, max_size=5), min_size=1, max_size=6), st.booleans())
def test_measures_by_step_are_those_of_each_step(steps: list[list[int]], one_is_unknown: bool) -> None:
    table = np.array(steps, np.float64)
    if one_is_unknown:
        table[:, 2] = np.nan
    found = by_step(table)
    for number, loads in enumerate(table):
        alone = load_metrics([None if math.isnan(load) else load for load in loads])
        for name in ("max_violation", "cv", "entropy", "gini", "hottest", "coldest"):
            value = getattr(found, name)[number]
            assert value == (None if alone is None else pytest.approx(getattr(alone, name), rel=1e-9, abs=1e-9))


def test_steps_of_which_no_load_is_known_have_no_measure() -> None:
    found = by_step(np.full((2, 3), np.nan))
    assert found.max_violation == found.cv == found.gini == found.hottest == found.coldest == (None, None)
