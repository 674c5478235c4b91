"""Tests of the orders of calls and intervals that a job repeats."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.probes.timing.call_orders import CallOrder, CallOrders
from distprof.probes.timing.node_hooks import NOBODY


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


@patient
@given(st.lists(st.integers(-3, 3), max_size=30))
def test_the_turns_of_each_owner_are_numbered(owners: list[int]) -> None:
    order = CallOrder(owners, [])
    assert order.turn_numbers == [owners[:place].count(owner) for place, owner in enumerate(owners)]
    assert order.turns_by_owner == Counter(owners)
