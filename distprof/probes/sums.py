"""Turns of modules, added up by row."""

from __future__ import annotations

import numpy as np

from distprof.records import LIMIT, Array
from distprof.timeline import Turns

_NO_CALLS: Array = np.zeros(0, "<u4")
_NO_TIMES: Array = np.zeros(0, np.int64)


class ModuleSums:
    """Calls and self times of one iteration's modules, by row; what is added up need not be kept turn by turn."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.calls = _NO_CALLS
        self.forward_ns = self.backward_ns = _NO_TIMES

    def add(self, turns: Turns, entered: list[int]) -> None:
        """More turns, whose owners are rows (forward), ``~row`` (backward) or none, and the rows that were called."""
        order = self._orders.of(turns.owners, entered)
        # Sums in float64 are exact up to 2**53 ns, 104 days.
        sums = np.bincount(order.places, turns.lengths_ns(), 2 * order.rows + 1).astype(np.int64)
        self.calls = _sum(order.calls, self.calls)
        self.forward_ns = _sum(sums[: order.rows], self.forward_ns)
        self.backward_ns = _sum(sums[order.rows : -1], self.backward_ns)


class Orders:
    """The orders in which a job's modules are called and take their turns.  It does so in the same ones over and over:
    what is to be known of one is found out once.
    """

    _MOST = 4

    def __init__(self) -> None:
        self._known: list[_Order] = []  # the last one that was asked for first

    def of(self, owners: list[int], entered: list[int]) -> _Order:
        for place, order in enumerate(self._known):
            # Nearly always the very same objects, one by one: none of them need be brought into the caches again.
            if order.owners == owners and order.entered == entered:
                if place:
                    self._known.insert(0, self._known.pop(place))
                return order
        self._known = [_Order(owners[:], entered[:]), *self._known[: self._MOST - 1]]
        return self._known[0]


class _Order:
    """``places``: of each turn, where its time is added up: forward time by row, behind it backward time by row, behind
    it nobody's.
    """

    def __init__(self, owners: list[int], entered: list[int]) -> None:
        self.owners = owners
        self.entered = entered
        self.calls: Array = np.bincount(np.array(entered, np.int64)).astype("<u4")
        given = np.array(owners, np.int64)
        rows = np.where(given < 0, ~given, given)
        self.rows = max(len(self.calls), int(rows[rows < LIMIT].max(initial=-1)) + 1)
        places = np.where(given < 0, rows + self.rows, rows)
        self.places: Array = np.where(rows < LIMIT, places, 2 * self.rows)


def _sum(one: Array, other: Array) -> Array:
    """Of two arrays by row, of which either may be the longer one."""
    if not len(other):
        return one
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
