from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.rank_names import few_spans, number_spans, rank_names


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([5, 0, 2, 1, 1], "0-2, 5"), ([1, 2, 4, 5], "1-2, 4-5")]
)
def test_spans(numbers: list[int], text: str) -> None:
    assert number_spans(numbers) == text


@given(st.sets(st.integers(0, 200)))
def test_spans_have_exactly_the_numbers(numbers: set[int]) -> None:
    named = set()
    for span in filter(None, number_spans(numbers).split(", ")):
        first, _, last = span.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == numbers


def test_ranks() -> None:
    assert [rank_names([3]), rank_names(iter([3, 4]))] == ["rank 3", "ranks 3-4"]


def test_a_long_list_is_cut() -> None:
    assert rank_names(range(0, 32, 2)) == f"ranks {', '.join(map(str, range(0, 32, 2)))}", "of 16 runs all are shown"
    assert rank_names(range(3, 16_384, 8)) == "ranks 3, 11, ..., 16379 (2,048 ranks)"
    squares = [number * number for number in range(3, 100)]
    assert rank_names([*squares, 10, 11]) == "ranks 9-11, 16, 25, 36, 49, 64, ..., 9801 (99 ranks)"
    assert few_spans(range(1, 256, 2), "expert") == "1, 3, ..., 255 (128 experts)"
    assert rank_names(range(16_384)) == "ranks 0-16383"
