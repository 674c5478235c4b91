"""One order of a module's children, from the orders of the children on several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise

from distprof.merge.job.module_keys import ModuleKey


class ChildOrder:
    """The children in the order in which they were added, and which child follows which."""

    def __init__(self) -> None:
        self._added: dict[ModuleKey, int] = {}
        self._after: dict[ModuleKey, set[ModuleKey]] = {}

    def add(self, children: Sequence[ModuleKey]) -> None:
        """Adds the children of one rank, in its order."""
        for key in children:
            self._added.setdefault(key, len(self._added))
            self._after.setdefault(key, set())
        for key, following in pairwise(children):
            self._after[key].add(following)

    def ordered(self) -> list[ModuleKey]:
        """Returns the children by number where all are numbers (a ModuleList), else in an order that fits every rank.

        Where ranks leave the order open, or contradict each other, the child that was added first comes first.
        """
        numbers = {key: key.named.name.rpartition(".")[2] for key in self._added}
        if all(text.isdecimal() for text in numbers.values()):
            return sorted(self._added, key=lambda key: (int(numbers[key]), key.stage))
        return self._topological()

    def _topological(self) -> list[ModuleKey]:
        before = dict.fromkeys(self._added, 0)
        for following in self._after.values():
            for key in following:
                before[key] += 1
        ready = [(place, key) for key, place in self._added.items() if not before[key]]
        order: dict[ModuleKey, None] = {}
        while len(order) < len(self._added):
            if not ready:  # a cycle: ranks contradict each other
                heappush(ready, next((place, key) for key, place in self._added.items() if key not in order))
            key = heappop(ready)[1]
            if key in order:
                continue
            order[key] = None
            for later in self._after[key]:
                before[later] -= 1
                if not before[later]:
                    heappush(ready, (self._added[later], later))
        return list(order)
