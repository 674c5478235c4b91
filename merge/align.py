"""One module tree for the whole job: the same module is found on every rank that has it.

Ranks may hold different modules (pipeline stages, experts).  A module is the same on two ranks when root, name and
class agree (and, where a wrapper wraps one of its own class, which of them it is).  The union is depth-first;
siblings keep the order that the ranks gave them, new ones go next to the neighbour that they have on their own rank,
and where all siblings are numbers (a ModuleList) they are in the order of their numbers.

    RankTree of each rank -> keys -> union of children -> depth-first modules, and for each tree where its rows went
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.labels import labels_of
from distprof.merge.tree import IntArray, RankTree
from distprof.records import ModuleRow

#: (root, name, class, which one of several alike on a rank)
Key = tuple[int, str, str, int]


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
        """``trees`` in rank order; ranks that share a tree may name it once each."""
        distinct = list({id(tree): tree for tree in trees}.values())
        keys = {id(tree): _keys(tree) for tree in distinct}
        union = _Union()
        for tree in distinct:
            union.add(tree, keys[id(tree)])
        self.modules = union.modules()
        place = {key: index for index, key in enumerate(union.order())}
        self._index = {id(tree): np.array([place[key] for key in keys[id(tree)]], np.int64) for tree in distinct}

    def index(self, tree: RankTree) -> IntArray:
        """By row of the tree: the module's index in the union."""
        return self._index[id(tree)]

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
        self._children: dict[Key | None, list[Key]] = {None: []}

    def add(self, tree: RankTree, keys: list[Key]) -> None:
        own: dict[Key | None, list[Key]] = {}
        for key, row in zip(keys, tree.rows, strict=True):
            # A module that stands elsewhere on an earlier rank stays where that rank has it.
            parent = self._parents.setdefault(key, keys[row.parent] if row.parent >= 0 else None)
            own.setdefault(parent, []).append(key)
            self._rows.setdefault(key, row)
        for parent, children in own.items():
            self._children[parent] = merge_siblings(self._children.get(parent, []), children)

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
        children = self._children.get(parent, [])
        if parent is None:
            return sorted(children, key=lambda key: key[0])
        numbers = [key[1].rpartition(".")[2] for key in children]
        return sorted(children, key=_number_of) if all(text.isdecimal() for text in numbers) else children

    def modules(self) -> tuple[Module, ...]:
        order = self.order()
        place = {key: index for index, key in enumerate(order)}
        depths: list[int] = []
        parents: list[int] = []
        for key in order:
            parent = self._parents[key]
            parents.append(-1 if parent is None else place[parent])
            depths.append(0 if parent is None else depths[parents[-1]] + 1)
        rows = [self._rows[key] for key in order]
        return tuple(Module(*fields) for fields in zip(labels_of(rows, parents), rows, parents, depths, strict=True))


def _number_of(key: Key) -> int:
    return int(key[1].rpartition(".")[2])


def merge_siblings(merged: list[Key], more: list[Key]) -> list[Key]:
    """``merged`` with the new ones of ``more``: next to the sibling before them, else the one after them, else last."""
    known = set(merged)
    if known.issuperset(more):
        return merged
    result = list(merged)
    for position, key in enumerate(more):
        if key in known:
            continue
        following = next((sibling for sibling in more[position:] if sibling in known), None)
        if position:
            result.insert(result.index(more[position - 1]) + 1, key)
        elif following is not None:
            result.insert(result.index(following), key)
        else:
            result.append(key)
        known.add(key)
    return result
