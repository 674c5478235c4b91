"""Numbers of combinations, and ragged ranges."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.arrays import combination, ragged

NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-(1 << 62), 1 << 62))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=30))
def test_equal_combinations_have_equal_numbers_in_their_order(rows: list[tuple[int, ...]]) -> None:
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    different = sorted(set(rows))
    assert combination(columns).tolist() == [different.index(row) for row in rows]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5))))
def test_ragged_ranges_follow_each_other(spans: list[tuple[int, int]]) -> None:
    first, number = (np.array([span[at] for span in spans], np.int64) for at in (0, 1))
    assert ragged(first, number).tolist() == [start + more for start, count in spans for more in range(count)]
