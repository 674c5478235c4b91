"""One module tree for the whole job: each module once, with the ranks that have it.

Ranks may hold different modules (pipeline stages, experts).  A module is the same on two ranks when model, name and
class are equal; where a wrapper wraps a module of its own class, also its place among them; and where a name means
another module on every stage (:mod:`distprof.merge.job.stages`), also the stage.  The union is depth-first, with
siblings in an order that fits every rank.

    RankTree of each rank -> keys -> union of children -> depth-first modules, and each rank's rows in the union
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distprof.merge.arrays import FloatArray, IntArray, ShortFloatArray
from distprof.merge.job.child_order import ChildOrder
from distprof.merge.job.module_keys import ModuleKey, ModuleName
from distprof.merge.job.module_labels import module_labels
from distprof.merge.job.stages import Pipeline, apart_on_stages
from distprof.merge.load.module_tree import RankTree
from distprof.plain import dataclass
from distprof.records import Array, ModuleRow

#: Ranks whose values are put in place together: a value at a time, all of a large run would miss the caches.
_RANKS_AT_ONCE = 64


@dataclass(frozen=True)
class Module:
    """One module of the union; ``row`` is its row on the first rank that has it."""

    label: str
    row: ModuleRow
    model: int
    stage: int  # where other stages have other modules of this name, else -1
    parent: int  # index in the union, -1 for a root
    depth: int


class ModuleUnion:
    """The union of some ranks' trees, and the place of each rank's rows in it."""

    def __init__(
        self,
        trees: Sequence[RankTree],
        pipelines: Sequence[Pipeline] | None = None,
        held_as: Mapping[int, str] | None = None,
    ) -> None:
        """``trees`` are in rank order; ranks that have the same modules may share one object.  Without ``pipelines``
        all ranks are on one stage.  ``held_as`` has the name of a model in the module that holds it.
        """
        kinds: dict[_Kind, int] = {}
        ranks = zip(trees, pipelines or [Pipeline()] * len(trees), strict=True)
        self._kind_of = [kinds.setdefault(kind, len(kinds)) for kind in ranks]  # by column
        keys = _keys(kinds)
        union = _Union()
        for (tree, _), own in keys.items():
            union.add(tree, own)
        order = union.order()
        place = {key: index for index, key in enumerate(order)}
        self.modules = union.modules(order, place, held_as)
        self._index = [np.array([place[key] for key in own], np.int64) for own in keys.values()]  # by kind
        every = np.arange(len(self.modules))
        # By kind: its places in a row of all modules.  Most kinds have all of them, and copying is then quicker.
        self._places = [slice(None) if np.array_equal(own, every) else own for own in self._index]

    def index(self, column: int) -> IntArray:
        """Returns, by row of the ``column``-th rank's tree, the module's index in the union."""
        return self._index[self._kind_of[column]]

    def kind(self, column: int) -> int:
        """Returns a number that ranks have in common whose trees, and the places of these in the union, are equal."""
        return self._kind_of[column]

    def stack(self, values: Sequence[ShortFloatArray | None], tables: int) -> ShortFloatArray:
        """Returns (tables, modules, ranks) from each rank's (tables, rows) values; NaN where a rank has no such module
        or no values.
        """
        stacked = np.empty((tables, len(self.modules), len(values)), np.float32)
        for first in range(0, len(values), _RANKS_AT_ONCE):
            some = values[first : first + _RANKS_AT_ONCE]
            by_rank = np.full((len(some), tables, len(self.modules)), np.nan, np.float32)
            for table, own, kind in zip(by_rank, some, self._kind_of[first:], strict=False):
                if own is not None:
                    table[:, self._places[kind]] = own
            stacked[..., first : first + len(some)] = np.moveaxis(by_rank, 0, -1)
        return stacked

    def holders(self) -> IntArray:
        """Returns by module how many ranks have it."""
        found = np.zeros(len(self.modules), np.int64)
        for kind, ranks in Counter(self._kind_of).items():
            found[self._index[kind]] += ranks
        return found

    def mean(self, values: Iterable[tuple[int, int, Array]]) -> FloatArray:
        """Returns by module the mean over the ranks that have a value, which is not NaN; NaN where none has.

        ``values`` has (number of ranks, their kind, their value by row).
        """
        alike: dict[tuple[int, int], Array] = {}  # ranks that share an array are added up at once
        ranks: Counter[tuple[int, int]] = Counter()
        for number, kind, own in values:
            key = id(own), kind
            ranks[key] += number
            alike[key] = own  # kept, so that the id stays its own
        total, known = np.zeros(len(self.modules)), np.zeros(len(self.modules))
        for key, own in alike.items():
            there, times, kind = ~np.isnan(own), ranks[key], key[1]
            total[self._index[kind]] += times * np.where(there, own, 0.0)
            known[self._index[kind]] += times * there
        return np.where(known > 0, total / np.maximum(known, 1), np.nan)


_Kind = tuple[RankTree, Pipeline]


def _keys(kinds: Iterable[_Kind]) -> dict[_Kind, list[ModuleKey]]:
    """Returns the keys of the rows, by tree and pipeline."""
    named = {(tree, pipeline): _names(tree, pipeline) for tree, pipeline in kinds}
    apart = apart_on_stages((tree, names, stages) for (tree, _), (names, stages) in named.items())
    return {
        kind: [ModuleKey(name, stage if name in apart else -1) for name, stage in zip(names, stages, strict=True)]
        for kind, (names, stages) in named.items()
    }


def _names(tree: RankTree, pipeline: Pipeline) -> tuple[list[ModuleName], list[int]]:
    """Returns the names and the stages of the rows."""
    seen: dict[tuple[int, str, str], int] = {}
    names, stages = [], []
    for row in tree.rows:
        alike = (row.root, row.name, row.class_name)
        seen[alike] = seen.get(alike, -1) + 1
        model, stage = pipeline.place(row.root)
        names.append(ModuleName(model, row.name, row.class_name, seen[alike]))
        stages.append(stage)
    return names, stages


class _Union:
    def __init__(self) -> None:
        self._rows: dict[ModuleKey, ModuleRow] = {}
        self._parents: dict[ModuleKey, ModuleKey | None] = {}
        self._children: dict[ModuleKey | None, ChildOrder] = {}

    def add(self, tree: RankTree, keys: list[ModuleKey]) -> None:
        own: dict[ModuleKey | None, list[ModuleKey]] = {}
        for key, row in zip(keys, tree.rows, strict=True):
            # A module keeps the parent that the first rank gives it.
            parent = self._parents.setdefault(key, keys[row.parent] if row.parent >= 0 else None)
            own.setdefault(parent, []).append(key)
            self._rows.setdefault(key, row)
        for parent, children in own.items():
            self._children.setdefault(parent, ChildOrder()).add(children)

    def order(self) -> list[ModuleKey]:
        """Returns the keys in depth-first order."""
        order: list[ModuleKey] = []
        waiting = self._ordered(None)[::-1]
        while waiting:
            key = waiting.pop()
            order.append(key)
            waiting += self._ordered(key)[::-1]
        return order

    def _ordered(self, parent: ModuleKey | None) -> list[ModuleKey]:
        children = self._children[parent].ordered() if parent in self._children else []
        return children if parent else sorted(children, key=lambda key: (key.named.model, key.stage))

    def modules(
        self, order: list[ModuleKey], place: dict[ModuleKey, int], held_as: Mapping[int, str] | None
    ) -> tuple[Module, ...]:
        depths: list[int] = []
        parents: list[int] = []
        for key in order:
            parent = self._parents[key]
            parents.append(-1 if parent is None else place[parent])
            depths.append(0 if parent is None else depths[parents[-1]] + 1)
        rows = [self._rows[key] for key in order]
        models, stages = [key.named.model for key in order], [key.stage for key in order]
        labels = module_labels(rows, parents, models, stages, held_as)
        return tuple(Module(*fields) for fields in zip(labels, rows, models, stages, parents, depths, strict=True))
