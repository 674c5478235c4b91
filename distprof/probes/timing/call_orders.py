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
        #: For each interval the slot of :meth:`by_row` that its time is added to, as int32; and the number of slots.
        self.slots = _time_slots(self.owners, len(called))
        self.size = 2 * len(called) + 1

    @cached_property
    def turn_numbers(self) -> list[int]:
        """For each interval its number, from 0, among those of its owner."""
        seen: dict[int, int] = {}
        numbers = []
        for owner in self.listed:
            number = seen.get(owner, 0)
            seen[owner] = number + 1
            numbers.append(number)
        return numbers

    @cached_property
    def turns_by_owner(self) -> Mapping[int, int]:
        """The number of intervals of each owner."""
        return Counter(self.listed)

    def by_row(self, sums_ns: Array) -> tuple[Array, Array]:
        """Returns the forward and the backward nanoseconds of each row, of the sums by slot."""
        rows = len(self.calls)
        return sums_ns[:rows], sums_ns[rows:-1]


def _time_slots(owners: Array, rows: int) -> bytes:
    """Returns for each interval the index at which its time is added, as int32.

    Forward times by row come first, then backward times by row (owners ``~row``), then the time of no module.
    """
    return np.where(owners < 0, rows + ~owners, np.where(owners < rows, owners, 2 * rows)).astype(np.int32).tobytes()
