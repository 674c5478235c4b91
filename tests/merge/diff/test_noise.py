"""The bounds of changes hold for steps that are not independent, and are narrow enough to see a change."""

from __future__ import annotations

from math import inf, log

import numpy as np
import pytest

from distprof.merge.arrays import FloatArray
from distprof.merge.diff.noise import Bounds, Estimate, bounds, estimate, of_repeated, student_quantile, widened


def mean(samples: FloatArray) -> float:
    return float(samples.mean())


@pytest.mark.parametrize(
    ("share", "freedom", "quantile"),
    [  # from a printed table
        (0.995, 3, 5.841), (0.995, 4, 4.604), (0.995, 10, 3.169), (0.995, 30, 2.750), (0.995, inf, 2.576),
        (0.975, 4, 2.776), (0.975, 20, 2.086), (0.9995, 8, 5.041),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_table(share: float, freedom: float, quantile: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(quantile, rel=0.01)


def autocorrelated(rng: np.random.Generator, steps: int, correlation: float) -> FloatArray:
    """Returns one run: 100 ms steps with 10 % noise, each step taking on a share of that of the step before."""
    noise = rng.normal(0, 0.1 * (1 - correlation**2) ** 0.5, steps)
    level = rng.normal(0, 0.1)
    found = []
    for shock in noise:
        level = correlation * level + shock
        found.append(100e6 * (1 + level))
    return np.array([found])


@pytest.mark.parametrize(("steps", "correlation"), [(10, 0.0), (10, 0.5), (40, 0.5), (40, 0.8)])
def test_equal_runs_are_rarely_called_different(steps: int, correlation: float) -> None:
    rng, wrong, pairs = np.random.default_rng(1), 0, 400
    for _ in range(pairs):
        first, second = (estimate(autocorrelated(rng, steps, correlation), mean) for _ in range(2))
        assert first is not None and second is not None
        wrong += bounds(first, second).excludes_zero
    assert wrong <= 0.04 * pairs  # nominal: 1 %


@pytest.mark.parametrize("of_run", [0.0, 0.01, 0.05])
def test_repeated_runs_are_rarely_called_different_however_much_runs_differ(of_run: float) -> None:
    rng, wrong, alone, pairs = np.random.default_rng(3), 0, 0, 400

    def run() -> Estimate | None:
        return estimate(autocorrelated(rng, 100, 0.5) * np.exp(rng.normal(0, of_run)), mean)

    for _ in range(pairs):
        first, second = ([run() for _ in range(3)] for _ in range(2))
        one, other, lone, second_lone = of_repeated(first), of_repeated(second), first[0], second[0]
        assert one is not None and other is not None and lone is not None and second_lone is not None
        wrong += bounds(one, other).excludes_zero
        alone += bounds(lone, second_lone).excludes_zero
    assert wrong <= 0.02 * pairs  # nominal: 1 %
    assert of_run < 0.05 or alone > 0.1 * pairs


def test_independent_errors_would_call_many_of_them_different() -> None:
    """The reason for batches: with 40 steps of correlation 0.8, an error of independent samples is a third of it."""
    rng, wrong, pairs = np.random.default_rng(1), 0, 400
    for _ in range(pairs):
        one, other = (autocorrelated(rng, 40, 0.8)[0] for _ in range(2))
        error = np.hypot(one.std(ddof=1), other.std(ddof=1)) / 40**0.5
        wrong += abs(one.mean() - other.mean()) > student_quantile(0.995, 78) * error
    assert wrong > 0.2 * pairs


def test_a_change_far_above_the_noise_is_seen_with_its_size() -> None:
    rng = np.random.default_rng(2)
    first = estimate(100e6 * (1 + rng.normal(0, 0.01, (1, 10))), mean)
    second = estimate(110e6 * (1 + rng.normal(0, 0.01, (1, 10))), mean)
    assert first is not None and second is not None
    found = bounds(first, second)
    assert 0.05 < found.low < 0.1 < found.high < 0.15
    back = bounds(second, first)
    assert (1 + back.low) * (1 + found.high) == pytest.approx(1)


def test_bounds_of_many_comparisons_are_wider() -> None:
    first, second = Estimate(log(100), 0.01, 4), Estimate(log(110), 0.01, 4)
    one, many = bounds(first, second), bounds(first, second, comparisons=50)
    assert many.low < one.low < one.change == pytest.approx(0.1) == many.change < one.high < many.high
    assert bounds(first, second, offset=log(1.1)).change == pytest.approx(0)


@pytest.mark.parametrize("samples", [np.ones((1, 7)), np.ones((3, 0)), np.zeros((1, 10))])
def test_too_few_steps_or_nothing_give_no_estimate(samples: FloatArray) -> None:
    assert estimate(samples, mean) is None


def test_waits_for_processors_widen_the_bounds() -> None:
    """A run of 100 ms that waited half of them may have taken 50 ms."""
    found = widened(Bounds(0.0, -0.1, 0.1), first_waited=0.5, second_waited=0.25)
    assert [found.low, found.high] == pytest.approx([0.9 * 0.75 - 1, 1.1 / 0.5 - 1])
    same = widened(Bounds(0.2, 0.1, 0.3), 0.0, 0.0)
    assert [same.change, same.low, same.high] == pytest.approx([0.2, 0.1, 0.3])
