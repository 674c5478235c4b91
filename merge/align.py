"""One module tree for the whole job: the same module is found on every rank that has it.

Ranks may hold different modules (pipeline stages, experts).  A module is the same on two ranks when root, name and
class agree (and, where a wrapper wraps one of its own class, which of them it is).  The union is depth-first, with
siblings in an order that every rank agrees with.

    RankTree of each rank -> keys -> union of children -> depth-first modules, and for each tree where its rows went
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.labels import labels_of
from distprof.merge.siblings import Key, Siblings
from distprof.merge.tree import IntArray, RankTree
from distprof.records import ModuleRow


@dataclass(frozen=True)
class Module:
    """One module of the union; ``row`` is its row on the first rank that has it."""

    label: str
    row: ModuleRow
    parent: int  # index in the union, -1 for a root
    depth: int


class Alignment:
    """The union of some ranks' trees, and the way from each rank's rows to it."""

    def __init__(self, trees: Sequence[RankTree]) -> None:
        """``trees`` in rank order; ranks that have the same modules may share one object."""
        keys = {tree: _keys(tree) for tree in dict.fromkeys(trees)}
        union = _Union()
        for tree, own in keys.items():
            union.add(tree, own)
        order = union.order()
        place = {key: index for index, key in enumerate(order)}
        self.modules = union.modules(order, place)
        self._index = {tree: np.array([place[key] for key in own], np.int64) for tree, own in keys.items()}

    def index(self, tree: RankTree) -> IntArray:
        """By row of the tree: the module's index in the union."""
        return self._index[tree]

    def stack(
        self, values: Iterable[tuple[RankTree, npt.NDArray[np.float64] | None]], ranks: int
    ) -> npt.NDArray[np.float64]:
        """(modules, ranks) from each rank's (rows) values; NaN where a rank has no such module or no values."""
        table = np.full((len(self.modules), ranks), np.nan)
        for column, (tree, own) in enumerate(values):
            if own is not None:
                table[self.index(tree), column] = own
        return table


def _keys(tree: RankTree) -> list[Key]:
    seen: dict[tuple[int, str, str], int] = {}
    keys = []
    for row in tree.rows:
        alike = (row.root, row.name, row.class_name)
        seen[alike] = seen.get(alike, -1) + 1
        keys.append((*alike, seen[alike]))
    return keys


class _Union:
    def __init__(self) -> None:
        self._rows: dict[Key, ModuleRow] = {}
        self._parents: dict[Key, Key | None] = {}
        self._children: dict[Key | None, Siblings] = {}

    def add(self, tree: RankTree, keys: list[Key]) -> None:
        own: dict[Key | None, list[Key]] = {}
        for key, row in zip(keys, tree.rows, strict=True):
            # A module that stands elsewhere on an earlier rank stays where that rank has it.
            parent = self._parents.setdefault(key, keys[row.parent] if row.parent >= 0 else None)
            own.setdefault(parent, []).append(key)
            self._rows.setdefault(key, row)
        for parent, children in own.items():
            self._children.setdefault(parent, Siblings()).add(children)

    def order(self) -> list[Key]:
        """Depth-first."""
        order: list[Key] = []
        waiting = self._ordered(None)[::-1]
        while waiting:
            key = waiting.pop()
            order.append(key)
            waiting += self._ordered(key)[::-1]
        return order

    def _ordered(self, parent: Key | None) -> list[Key]:
        children = self._children[parent].ordered() if parent in self._children else []
        return children if parent else sorted(children, key=lambda key: key[0])

    def modules(self, order: list[Key], place: dict[Key, int]) -> tuple[Module, ...]:
        depths: list[int] = []
        parents: list[int] = []
        for key in order:
            parent = self._parents[key]
            parents.append(-1 if parent is None else place[parent])
            depths.append(0 if parent is None else depths[parents[-1]] + 1)
        rows = [self._rows[key] for key in order]
        return tuple(Module(*fields) for fields in zip(labels_of(rows, parents), rows, parents, depths, strict=True))
