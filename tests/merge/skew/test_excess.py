"""The excess over the others is what a loop over ranks and ``statistics.median`` say, step by step."""

from __future__ import annotations

from statistics import NormalDist, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.skew.excess import LEAST_ERROR_NS, excess_over_others, standard_error

times = st.lists(st.one_of(st.just(np.nan), st.integers(0, 20).map(float)), min_size=1, max_size=9)


@given(times)
def test_excess_is_measured_from_the_median_of_the_others(step: list[float]) -> None:
    excess = excess_over_others(np.array(step)[:, None])[:, 0]
    for rank, own in enumerate(step):
        others = [time for other, time in enumerate(step) if other != rank and not np.isnan(time)]
        if np.isnan(own) or not others:
            assert np.isnan(excess[rank])
        else:
            assert excess[rank] == own - median(others)


def test_steps_are_apart() -> None:
    table = np.array([[1.0, 50.0], [2.0, 10.0], [9.0, 20.0]])
    assert excess_over_others(table).tolist() == [[1 - 5.5, 50 - 15], [2 - 5, 10 - 35], [9 - 1.5, 20 - 30]]


def test_the_standard_error_is_that_of_a_median_of_normal_noise() -> None:
    random, sigma, steps = np.random.default_rng(1), 2e6, 16
    excess = random.normal(0, sigma, (2000, steps))
    medians = np.median(excess, axis=1)
    expected = float(np.quantile(medians, NormalDist().cdf(1)))  # one standard deviation, by counting
    assert standard_error(excess) == pytest.approx(expected, rel=0.1)


def test_steps_that_are_all_alike_have_the_error_of_a_clock() -> None:
    assert standard_error(np.zeros((4, 10))) == LEAST_ERROR_NS
