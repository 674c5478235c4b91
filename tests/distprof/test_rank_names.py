from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.rank_names import number_spans, rank_names


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
