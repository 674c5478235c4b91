"""The orders in which modules are called and own time: a job repeats a few, and each is analysed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from distprof.records import LIMIT, Array


class CallOrders:
    """Caches the orders of module calls and intervals: a job repeats a few orders, and each is analysed once."""

    _MOST = 4

    def __init__(self) -> None:
        self._known: list[CallOrder] = []  # most recently used first

    def of(self, owners: list[int], entered: list[int]) -> CallOrder:
        for place, order in enumerate(self._known):
            # The elements are nearly always the same objects, which compare without loading them into the caches.
            if order.listed == owners and order.entered == entered:
                if place:
                    self._known.insert(0, self._known.pop(place))
                return order
        self._known = [CallOrder(owners[:], entered[:]), *self._known[: self._MOST - 1]]
        return self._known[0]


class CallOrder:
    """One order of intervals and calls.

    ``owners`` has the owner of each interval: a row, ``~row`` in backward, or ``NOBODY``.  ``calls`` has the calls by
    row, for all rows with a call or an interval.
    """

    def __init__(self, owners: list[int], entered: list[int]) -> None:
        self.listed = owners
        self.entered = entered
        self.owners: Array = np.array(owners, np.int64)
        rows = np.where(self.owners < 0, ~self.owners, self.owners)
        called = np.bincount(np.array(entered, np.int64), minlength=int(rows[rows < LIMIT].max(initial=-1)) + 1)
        self.calls: Array = called.astype("<u4")
        self._slots = _time_slots(self.owners, len(called))

    @cached_property
    def turn_numbers(self) -> Array:
        """For each interval its number, from 0, among those of its owner, int64 of shape (intervals,)."""
        seen: dict[int, int] = {}
        numbers = []
        for owner in self.listed:
            number = seen.get(owner, 0)
            seen[owner] = number + 1
            numbers.append(number)
        return np.array(numbers, np.int64)

    @cached_property
    def turns_by_owner(self) -> Mapping[int, int]:
        """The number of intervals of each owner."""
        return Counter(self.listed)

    def sum_by_row(self, moments_ns: Array) -> tuple[Array, Array]:
        """Returns the forward and the backward nanoseconds of each row, int64 of shape (rows,).

        ``moments_ns``: when each interval began, and when the last one ended.
        """
        rows = len(self.calls)
        # Sums in float64 are exact up to 2**53 ns, 104 days.
        sums = np.bincount(self._slots, moments_ns[1:] - moments_ns[:-1], 2 * rows + 1).astype(np.int64)
        return sums[:rows], sums[rows:-1]


def _time_slots(owners: Array, rows: int) -> Array:
    """Returns for each interval the index at which its time is added.

    Forward times by row come first, then backward times by row (owners ``~row``), then the time of no module.
    """
    found: Array = np.where(owners < 0, rows + ~owners, np.where(owners < rows, owners, 2 * rows))
    return found
