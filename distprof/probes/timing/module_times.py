"""What a timed step tells of its modules: calls by row, and their turns as stamped, or self times added up by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from distprof.probes.timing.timeline import Intervals
from distprof.records import LIMIT, NO_ROW, Array
from distprof.shard.module_times import sum_by_row, time_slots

_NO_CALLS: Array = np.zeros(0, "<u4")
_NO_TIMES: Array = np.zeros(0, np.int64)
#: Fields of a step's record by name; arrays may be given as the bytes in which they travel.
Fields = dict[str, Any]


class ModuleTimeSums:
    """Calls and self times of one iteration's modules, by row; what is added up need not be kept turn by turn."""

    def __init__(self, orders: CallOrders) -> None:
        self._orders = orders
        self.calls = _NO_CALLS
        self.forward_ns = self.backward_ns = _NO_TIMES

    def add(self, turns: Intervals, entered: list[int]) -> None:
        """More turns, whose owners are rows (forward), ``~row`` (backward) or none, and the rows that were called."""
        order = self._orders.of(turns.owners, entered)
        forward_ns, backward_ns = sum_by_row(order.places, turns.lengths_ns(), len(order.calls))
        self.calls = _sum(order.calls, self.calls)
        self.forward_ns = _sum(forward_ns, self.forward_ns)
        self.backward_ns = _sum(backward_ns, self.backward_ns)

    def fields(self) -> Fields:
        return {"calls": self.calls, "forward_ns": self.forward_ns, "backward_ns": self.backward_ns}

    def fields_with(self, turns: Intervals, entered: list[int]) -> Fields:
        """Those of the iteration that ends with these turns.  Nothing is added up when they are all that it has, and
        few: a reader does that as well, and here it would be a good part of what a short step costs.
        """
        if len(self.calls) or (stamps := turns.packed()) is None:
            self.add(turns, entered)
            return self.fields()
        order = self._orders.of(turns.owners, entered)
        packed = {"calls": order.packed_calls, "owners": order.packed_owners, "stamps": stamps}
        return {**packed, "forward_ns": b"", "backward_ns": b""}


class CallOrders:
    """The orders in which a job's modules are called and take their turns.  It does so in the same ones over and over:
    what is to be known of one is found out once.
    """

    _MOST = 4

    def __init__(self) -> None:
        self._known: list[_CallOrder] = []  # the last one that was asked for first

    def of(self, owners: list[int], entered: list[int]) -> _CallOrder:
        for place, order in enumerate(self._known):
            # Nearly always the very same objects, one by one: none of them need be brought into the caches again.
            if order.owners == owners and order.entered == entered:
                if place:
                    self._known.insert(0, self._known.pop(place))
                return order
        self._known = [_CallOrder(owners[:], entered[:]), *self._known[: self._MOST - 1]]
        return self._known[0]


class _CallOrder:
    """``calls`` by row, of all rows that were called or took a turn; ``time_slots`` of the turns, as they are added
    up."""

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
    """Of two arrays by row, of which either may be the longer one."""
    if not len(other):
        return one
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
