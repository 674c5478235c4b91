"""The modules' fields of a timed step: calls and self times, summed by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from distprof.probes.timing.call_orders import CallOrders
from distprof.probes.timing.long_turns import LongTurns
from distprof.probes.timing.timeline import Intervals
from distprof.records import LONG_TURN_NS, Array

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
        self.long_turns = LongTurns()  # of intervals on the host's clock

    def add(self, intervals: Intervals, entered: list[int], *, last: bool = False) -> None:
        """Adds intervals, owned by rows (forward), ``~row`` (backward) or nobody, and the called rows.  Every interval
        of a timed step passes here once, in order; with the ``last`` ones the step is complete.
        """
        order, source = self._orders.of(intervals.owners, entered), intervals.source
        sums_ns, long = source.sums_ns(intervals.timestamps, order.slots, order.size, LONG_TURN_NS)
        if source.immediate and (long or not last):
            self.long_turns.add(order, long, intervals.timestamps, last=last)
        calls, (forward_ns, backward_ns) = order.calls, order.by_row(sums_ns)
        if len(self.calls):
            calls, forward_ns = _sum(calls, self.calls), _sum(forward_ns, self.forward_ns)
            backward_ns = _sum(backward_ns, self.backward_ns)
        self.calls, self.forward_ns, self.backward_ns = calls, forward_ns, backward_ns

    def fields_with(self, intervals: Intervals, entered: list[int]) -> Fields:
        """Returns the fields of the iteration that ends with these intervals."""
        self.add(intervals, entered, last=True)
        return {"calls": self.calls, "forward_ns": self.forward_ns, "backward_ns": self.backward_ns}


def _sum(one: Array, other: Array) -> Array:
    """Returns the sum of two arrays by row, which may differ in length."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    both: Array = longer.copy()
    both[: len(shorter)] += shorter
    return both
