"""Tests of intervals summed by row, compared with the same sums in plain Python."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.clock import FakeClock
from distprof.probes.timing.module_timer import NOBODY
from distprof.probes.timing.module_times import CallOrders, ModuleTimeSums
from distprof.probes.timing.timeline import HostTimestamps, Timeline

#: A piece of work: the owner of each interval (~row in backward), and which modules were called.
PIECES = st.tuples(
    st.lists(st.tuples(st.one_of(st.integers(-6, 5), st.just(NOBODY)), st.integers(0, 50))),
    st.lists(st.integers(0, 5)),
)


@patient
@given(st.lists(st.lists(PIECES, max_size=4), max_size=4))
def test_every_iteration_sums_its_own_intervals(
    iterations: list[list[tuple[list[tuple[int, int]], list[int]]]],
) -> None:
    """After any earlier iterations: a known order of intervals is used again."""
    clock, orders = FakeClock(), CallOrders()
    timeline = Timeline(HostTimestamps(clock.mono_ns), NOBODY)
    for pieces in iterations:
        sums, expected, calls = ModuleTimeSums(orders), Counter[int](), Counter[int]()
        for intervals, entered in pieces:
            timeline.restart(NOBODY)
            for owner, milliseconds in intervals:
                timeline.switch_to(owner)
                clock.advance_ms(milliseconds)
                expected[owner] += round(milliseconds * 1e6)
            sums.add(timeline.finish(), entered)
            calls.update(entered)
        rows = len(sums.forward_ns)
        assert len(sums.backward_ns) == rows >= len(sums.calls)
        assert sums.forward_ns.tolist() == [expected[row] for row in range(rows)]
        assert sums.backward_ns.tolist() == [expected[~row] for row in range(rows)]
        assert sums.calls.tolist() == [calls[row] for row in range(len(sums.calls))]
        assert not any(expected[row] or expected[~row] or calls[row] for row in range(rows, 6))


def test_an_order_is_computed_once() -> None:
    orders = CallOrders()
    first = orders.of([0, 1, 0, NOBODY], [0, 1])
    other = orders.of([0, 0, NOBODY], [0, 0])
    assert orders.of([0, 1, 0, NOBODY], [0, 1]) is first and orders.of([0, 0, NOBODY], [0, 0]) is other
    assert orders.of([0, 1, 0, NOBODY], [0, 0]) is not first  # the same intervals, of other calls


def test_orders_that_do_not_repeat_are_not_kept() -> None:
    orders = CallOrders()
    for number in range(100):
        orders.of([0] * number, [0])
    assert len(orders._known) <= 4
