"""The fast medians are equal to those of numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from distprof.merge.stats import median_of_steps, median_over_steps, quantile

nanoseconds = st.integers(0, 2**52)
seen = st.floats(0, 2**52, width=64)


@given(arrays.arrays(np.int64, arrays.array_shapes(min_dims=1, max_dims=3, max_side=12), elements=nanoseconds))
def test_median_over_steps(table: np.ndarray) -> None:
    found = median_over_steps(table)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.median(table, axis=0))


@given(st.lists(st.one_of(seen, st.just(np.nan)), min_size=1).filter(lambda values: not np.isnan(values).all()))
def test_median_of_steps_with_a_value(values: list[float]) -> None:
    assert median_of_steps(np.array(values)) == np.nanmedian(values)


@given(st.lists(nanoseconds, min_size=1))
def test_median_of_integers(values: list[int]) -> None:
    assert median_of_steps(np.array(values, np.int64)) == np.median(values)


@given(st.lists(st.one_of(nanoseconds, seen), min_size=1), st.floats(0, 1))
def test_quantile(values: list[float], share: float) -> None:
    assert quantile(values, share) == np.quantile(np.array(values, np.float64), share)
    assert quantile(np.array(values), share) == quantile(values, share)
