from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.wording import join_words, pluralise
from distprof.rank.names import number_spans, rank_names


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


def test_counts_and_names() -> None:
    assert [pluralise(1, "rank"), pluralise(2, "rank"), pluralise(4096, "rank")] == ["1 rank", "2 ranks", "4,096 ranks"]
    assert [rank_names([3]), rank_names(iter([3, 4]))] == ["rank 3", "ranks 3-4"]
    assert [join_words(["a", "b", "c"]), join_words(list("abcde"))] == ["a, b, c", "a, b, c and 2 more"]
