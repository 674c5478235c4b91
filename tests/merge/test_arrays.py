"""Numbers of combinations, groups of values, and ragged ranges."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.arrays import (
    combination,
    distinct,
    first_of_each,
    largest_of_each,
    places_of,
    ragged,
    smallest_of_each,
)

NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-(1 << 62), 1 << 62))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=30))
def test_equal_combinations_have_equal_numbers_in_their_order(rows: list[tuple[int, ...]]) -> None:
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    different = sorted(set(rows))
    assert combination(columns).tolist() == [different.index(row) for row in rows]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2))))
def test_the_first_of_each_combination_begins_its_run(rows: list[tuple[int, int]]) -> None:
    rows.sort()
    columns = [np.array([row[at] for row in rows], np.int64) for at in (0, 1)]
    assert np.flatnonzero(first_of_each(*columns)).tolist() == [rows.index(row) for row in sorted(set(rows))]


@given(st.lists(NUMBERS))
def test_the_different_values_ascend(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))


@given(st.lists(st.tuples(st.integers(0, 4), NUMBERS)))
def test_the_largest_and_the_smallest_of_each_group(rows: list[tuple[int, int]]) -> None:
    group, values = (np.array([row[at] for row in rows], np.int64) for at in (0, 1))
    members = [[value for own, value in rows if own == number] for number in range(5)]
    ends = np.iinfo(np.int64)
    assert largest_of_each(group, values, 5).tolist() == [max(own, default=ends.min) for own in members]
    assert smallest_of_each(group, values, 5).tolist() == [min(own, default=ends.max) for own in members]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5))))
def test_ragged_ranges_follow_each_other(spans: list[tuple[int, int]]) -> None:
    first, number = (np.array([span[at] for span in spans], np.int64) for at in (0, 1))
    assert ragged(first, number).tolist() == [start + more for start, count in spans for more in range(count)]


@given(st.lists(st.integers(0, 4)), st.integers(5, 7))
def test_each_number_has_its_places(numbers: list[int], size: int) -> None:
    found = places_of(np.array(numbers, np.int64), size)
    assert [own.tolist() for own in found] == [
        [place for place, other in enumerate(numbers) if other == number] for number in range(size)
    ]
