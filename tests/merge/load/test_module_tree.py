"""One rank's tree: sums over subtrees, whatever the order of its rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distprof.merge.load.module_tree import RankTree, depth_first, valid_rows
from distprof.records import ModuleRow, Tree

#: Each row's parent is -1 or stands before it.
parents = st.lists(st.integers(0, 30), min_size=1, max_size=30).map(
    lambda draws: [draw % (row + 1) - 1 for row, draw in enumerate(draws)]
)


def rows_of(parents_: list[int]) -> tuple[ModuleRow, ...]:
    depths: list[int] = []
    for parent in parents_:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return tuple(
        ModuleRow(str(row), "Module", 0, parent, depth)
        for row, (parent, depth) in enumerate(zip(parents_, depths, strict=True))
    )


def ancestors(parents_: list[int], row: int) -> set[int]:
    found = {row}
    while (row := parents_[row]) >= 0:
        found.add(row)
    return found


@given(parents, st.data())
def test_inclusive_is_the_sum_of_exclusive_over_the_subtree(parents_: list[int], data: st.DataObject) -> None:
    numbers = st.integers(-(1 << 50), 1 << 50)
    own = data.draw(st.lists(numbers, min_size=len(parents_), max_size=len(parents_)))
    expected = [0] * len(own)
    for row, value in enumerate(own):
        for ancestor in ancestors(parents_, row):
            expected[ancestor] += value
    tree = RankTree(rows_of(parents_))
    assert tree.inclusive(np.array(own)).tolist() == expected
    assert tree.inclusive(np.array([own, own])).tolist() == [expected, expected]


@given(parents)
def test_a_subtree_holds_the_rows_that_have_its_top_above_them(parents_: list[int]) -> None:
    tree = RankTree(rows_of(parents_))
    for top in range(len(parents_)):
        assert tree.subtree(top) == {row for row in range(len(parents_)) if top in ancestors(parents_, row)}


def test_depth_first_keeps_the_order_of_siblings() -> None:
    assert depth_first([-1, 0, 0, 1, -1, 2, 1]) == [0, 1, 3, 6, 2, 5, 4]


def test_rows_after_a_lost_record_cannot_be_placed() -> None:
    rows = rows_of([-1, 0, 0, 1])
    assert valid_rows([Tree(0, rows[:2]), Tree(2, rows[2:])]) == rows
    assert valid_rows([Tree(0, rows[:2]), Tree(3, rows[3:])]) == rows[:2]
    assert valid_rows([Tree(2, rows[2:])]) == ()
