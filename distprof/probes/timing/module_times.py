"""The modules' fields of a timed step: calls by row, and packed intervals, or self times summed by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from distprof.probes.timing.timeline import Intervals
from distprof.records import LIMIT, NO_ROW, Array
from distprof.shard.module_times import sum_by_row, time_slots

_NO_CALLS: Array = np.zeros(0, "<u4")
_NO_TIMES: Array = np.zeros(0, np.int64)
#: Fields of a step's record by name; arrays may be given as the bytes that are written.
Fields = dict[str, Any]


class ModuleTimeSums:
    """Sums calls and self times of one iteration's modules by row; summed intervals need not be kept."""

    def __init__(self, orders: CallOrders) -> None:
        self._orders = orders
        self.calls = _NO_CALLS
        self.forward_ns = self.backward_ns = _NO_TIMES

    def add(self, intervals: Intervals, entered: list[int]) -> None:
        """Adds intervals, owned by rows (forward), ``~row`` (backward) or nobody, and the called rows."""
        order = self._orders.of(intervals.owners, entered)
        forward_ns, backward_ns = sum_by_row(order.places, intervals.lengths_ns(), len(order.calls))
        self.calls = _sum(order.calls, self.calls)
        self.forward_ns = _sum(forward_ns, self.forward_ns)
        self.backward_ns = _sum(backward_ns, self.backward_ns)

    def fields(self) -> Fields:
        return {"calls": self.calls, "forward_ns": self.forward_ns, "backward_ns": self.backward_ns}

    def fields_with(self, intervals: Intervals, entered: list[int]) -> Fields:
        """Returns the fields of the iteration that ends with these intervals.  Few intervals that are all of the
        iteration are not summed: the reader does that, and here it would be a large part of a short step's cost.
        """
        if len(self.calls) or (timestamps := intervals.packed()) is None:
            self.add(intervals, entered)
            return self.fields()
        order = self._orders.of(intervals.owners, entered)
        packed = {"calls": order.packed_calls, "owners": order.packed_owners, "stamps": timestamps}
        return {**packed, "forward_ns": b"", "backward_ns": b""}


class CallOrders:
    """Caches the orders of module calls and intervals: a job repeats a few orders, and each is analysed once."""

    _MOST = 4

    def __init__(self) -> None:
        self._known: list[_CallOrder] = []  # most recently used first

    def of(self, owners: list[int], entered: list[int]) -> _CallOrder:
        for place, order in enumerate(self._known):
            # The elements are nearly always the same objects, which compare without loading them into the caches.
            if order.owners == owners and order.entered == entered:
                if place:
                    self._known.insert(0, self._known.pop(place))
                return order
        self._known = [_CallOrder(owners[:], entered[:]), *self._known[: self._MOST - 1]]
        return self._known[0]


class _CallOrder:
    """Has ``calls`` by row, for all rows with a call or an interval, and ``places``, the intervals' time slots."""

    def __init__(self, owners: list[int], entered: list[int]) -> None:
        self.owners = owners
        self.entered = entered
        given = np.array(owners, np.int64)
        rows = np.where(given < 0, ~given, given)
        called = np.bincount(np.array(entered, np.int64), minlength=int(rows[rows < LIMIT].max(initial=-1)) + 1)
        self.calls: Array = called.astype("<u4")
        self.places = time_slots(given, len(called))
        self.packed_calls = self.calls.tobytes()
        self.packed_owners = np.where(rows < LIMIT, given, NO_ROW).astype("<i4").tobytes()


def _sum(one: Array, other: Array) -> Array:
    """Returns the sum of two arrays by row, which may differ in length."""
    if not len(other):
        return one
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
