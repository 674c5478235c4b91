"""The order of one module's children, from the orders that several ranks have of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise

#: (model, name, class, which one of several alike on a rank, its stage or -1)
Key = tuple[int, str, str, int, int]


class ChildOrder:
    """Children as they are met, and who followed whom."""

    def __init__(self) -> None:
        self._met: dict[Key, int] = {}
        self._after: dict[Key, set[Key]] = {}

    def add(self, children: Sequence[Key]) -> None:
        """One rank's children, in its order."""
        for key in children:
            self._met.setdefault(key, len(self._met))
            self._after.setdefault(key, set())
        for key, following in pairwise(children):
            self._after[key].add(following)

    def ordered(self) -> list[Key]:
        """By number where all are numbers (a ModuleList); else in an order that every rank agrees with.

        Where ranks leave it open, or contradict each other, who was met first comes first.
        """
        numbers = {key: key[1].rpartition(".")[2] for key in self._met}
        if all(text.isdecimal() for text in numbers.values()):
            return sorted(self._met, key=lambda key: (int(numbers[key]), key[4]))
        return self._topological()

    def _topological(self) -> list[Key]:
        before = dict.fromkeys(self._met, 0)
        for following in self._after.values():
            for key in following:
                before[key] += 1
        ready = [(met, key) for key, met in self._met.items() if not before[key]]
        order: dict[Key, None] = {}
        while len(order) < len(self._met):
            if not ready:  # a circle: ranks contradict each other
                heappush(ready, next((met, key) for key, met in self._met.items() if key not in order))
            key = heappop(ready)[1]
            if key in order:
                continue
            order[key] = None
            for later in self._after[key]:
                before[later] -= 1
                if not before[later]:
                    heappush(ready, (self._met[later], later))
        return list(order)
