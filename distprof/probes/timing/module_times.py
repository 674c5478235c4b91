"""The modules' fields of a timed step: calls and self times, summed by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from distprof.probes.timing.timeline import Intervals
from distprof.records import LIMIT, Array

_NO_CALLS: Array = np.zeros(0, "<u4")
_NO_TIMES: Array = np.zeros(0, np.int64)
#: Fields of a step's record by name.
Fields = dict[str, Any]


class ModuleTimeSums:
    """Sums calls and self times of one iteration's modules by row; summed intervals need not be kept."""

    def __init__(self, orders: CallOrders) -> None:
        self._orders = orders
        self.calls = _NO_CALLS
        self.forward_ns = self.backward_ns = _NO_TIMES

    def add(self, intervals: Intervals, entered: list[int]) -> None:
        """Adds intervals, owned by rows (forward), ``~row`` (backward) or nobody, and the called rows.

        Every interval of a timed step passes here once, in order: ``order.owners`` and ``moments_ns`` have all of them.
        """
        order, moments_ns = self._orders.of(intervals.owners, entered), intervals.moments_ns()
        forward_ns, backward_ns = order.sum_by_row(moments_ns)
        self.calls = _sum(order.calls, self.calls)
        self.forward_ns = _sum(forward_ns, self.forward_ns)
        self.backward_ns = _sum(backward_ns, self.backward_ns)

    def fields(self) -> Fields:
        return {"calls": self.calls, "forward_ns": self.forward_ns, "backward_ns": self.backward_ns}

    def fields_with(self, intervals: Intervals, entered: list[int]) -> Fields:
        """Returns the fields of the iteration that ends with these intervals."""
        self.add(intervals, entered)
        return self.fields()


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


def _sum(one: Array, other: Array) -> Array:
    """Returns the sum of two arrays by row, which may differ in length."""
    if not len(other):
        return one
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
