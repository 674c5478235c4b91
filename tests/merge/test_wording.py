from __future__ import annotations

from distprof.merge.wording import join_words, pluralise


def test_counts_and_words() -> None:
    assert [pluralise(1, "rank"), pluralise(2, "rank"), pluralise(4096, "rank")] == ["1 rank", "2 ranks", "4,096 ranks"]
    assert [join_words(["a", "b", "c"]), join_words(list("abcde"))] == ["a, b, c", "a, b, c and 2 more"]
