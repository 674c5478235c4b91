"""Ledgers of turns, read on a clock that is moved by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.clock import FakeClock
from distprof.probes.timing.timeline import HostTimestamps, Timeline

MS = 1_000_000


def test_an_owner_holds_the_time_until_the_next_turn() -> None:
    clock = FakeClock()
    ledger = Timeline(HostTimestamps(clock.mono_ns), "a")
    clock.advance_ms(3)
    ledger.turn("b")
    clock.advance_ms(5)
    ledger.turn("a")
    clock.advance_ms(7)
    assert ledger.take().sums_ns() == {"a": 10 * MS, "b": 5 * MS}


def test_owners_may_be_named_anew_before_turns_are_taken() -> None:
    clock = FakeClock()
    ledger = Timeline(HostTimestamps(clock.mono_ns), "not known yet")
    clock.advance_ms(3)
    ledger.owners[0] = "known"
    assert ledger.take().sums_ns() == {"known": 3 * MS}


def test_turns_that_were_taken_do_not_change() -> None:
    clock = FakeClock()
    ledger = Timeline(HostTimestamps(clock.mono_ns), "a")
    clock.advance_ms(3)
    taken = ledger.take()
    clock.advance_ms(10)
    ledger.restart("b")
    clock.advance_ms(5)
    assert taken.sums_ns() == {"a": 3 * MS}
    assert ledger.take().sums_ns() == {"b": 5 * MS}


@patient
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000))))
def test_all_owners_together_fill_the_whole(turns: list[tuple[int, int]]) -> None:
    clock = FakeClock()
    ledger = Timeline(HostTimestamps(clock.mono_ns), 0)
    for owner, milliseconds in turns:
        ledger.turn(owner)
        clock.advance_ms(milliseconds)
    taken = ledger.take()
    assert sum(taken.sums_ns().values()) == clock.mono_ns() == taken.end
