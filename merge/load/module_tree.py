"""One rank's module tree in depth-first order, in which every subtree is one range of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np

from distprof.merge.arrays import IntArray
from distprof.records import ModuleRow, Tree


class RankTree:
    """The rows of one rank's tree; ranks that wrote the same records share one object."""

    def __init__(self, rows: tuple[ModuleRow, ...]) -> None:
        """``rows`` has each parent before its children."""
        self.rows = rows
        self.own_params = np.array([row.own_params for row in rows], np.float64)
        self.total_params = np.array([row.total_params for row in rows], np.float64)
        self._order = np.array(depth_first([row.parent for row in rows]), np.int64)
        self._in_order = bool((self._order == np.arange(len(rows))).all())  # as in a tree of one record
        sizes = np.ones(len(rows), np.int64)
        for row in range(len(rows) - 1, -1, -1):
            if rows[row].parent >= 0:
                sizes[rows[row].parent] += sizes[row]
        self._start = np.empty(len(rows), np.int64)  # by row: its place in the order
        self._start[self._order] = np.arange(len(rows))
        self._end = self._start + sizes
        #: Rows with modules below them; of the others, sums over subtrees are their own values.
        self.inner = np.flatnonzero(sizes > 1)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def roots(self) -> dict[int, str]:
        """Returns the class of each model, under its wrappers, by the model's number."""
        return {row.root: row.class_name for row in self.rows if not row.name}

    def renamed(self, rename: Callable[[int, str], str]) -> RankTree:
        """Returns the tree with new names; ``rename`` maps (root, name) to a name."""
        return RankTree(tuple(replace(row, name=rename(row.root, row.name)) for row in self.rows))

    def inclusive(self, own: IntArray) -> IntArray:
        """Returns exact sums over subtrees: (..., rows) exclusive integers to (..., rows) inclusive ones."""
        running = np.zeros((*own.shape[:-1], len(self) + 1), object if own.dtype == object else np.int64)
        np.cumsum(own if self._in_order else own[..., self._order], axis=-1, out=running[..., 1:])
        inclusive: IntArray = own.astype(running.dtype)
        ends, begins = (running.take(place[self.inner], axis=-1) for place in (self._end, self._start))
        inclusive[..., self.inner] = ends - begins
        return inclusive

    def subtree(self, row: int) -> frozenset[int]:
        """Returns the row and all rows below it."""
        return frozenset(self._order[self._start[row] : self._end[row]].tolist())


def depth_first(parents: list[int]) -> list[int]:
    """Returns indices in depth-first order, siblings in their own; ``parents`` (-1: a root) precede their children."""
    children: dict[int, list[int]] = {}
    for index, parent in enumerate(parents):
        children.setdefault(parent, []).append(index)
    order: list[int] = []
    waiting = children.get(-1, [])[::-1]
    while waiting:
        index = waiting.pop()
        order.append(index)
        waiting += children.get(index, [])[::-1]
    return order


def valid_rows(trees: Iterable[Tree]) -> tuple[ModuleRow, ...]:
    """Returns all rows from row 0 up to the first gap (a lost record), or the first row without its parent."""
    rows: list[ModuleRow] = []
    for tree in trees:
        if tree.first_row != len(rows):
            break
        for row in tree.rows:
            if not -1 <= row.parent < len(rows):
                return tuple(rows)
            rows.append(row)
    return tuple(rows)
