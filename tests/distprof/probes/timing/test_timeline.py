"""Tests of timelines, on a clock that the test advances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.records import patient
from support.simulated.clock import FakeClock

from distprof.probes.timing.timeline import HostTimestamps, Timeline

MS = 1_000_000


def test_an_interval_lasts_until_the_next_one_begins() -> None:
    clock = FakeClock()
    timeline = Timeline(HostTimestamps(clock.mono_ns), "a")
    clock.advance_ms(3)
    timeline.switch_to("b")
    clock.advance_ms(5)
    timeline.switch_to("a")
    clock.advance_ms(7)
    assert timeline.finish_copy().sums_ns() == {"a": 10 * MS, "b": 5 * MS}


def test_owners_can_be_renamed_before_the_end() -> None:
    clock = FakeClock()
    timeline = Timeline(HostTimestamps(clock.mono_ns), "not known yet")
    clock.advance_ms(3)
    timeline.owners[0] = "known"
    assert timeline.finish_copy().sums_ns() == {"known": 3 * MS}


def test_copied_intervals_do_not_change() -> None:
    clock = FakeClock()
    timeline = Timeline(HostTimestamps(clock.mono_ns), "a")
    clock.advance_ms(3)
    taken = timeline.finish_copy()
    clock.advance_ms(10)
    timeline.restart("b")
    clock.advance_ms(5)
    assert taken.sums_ns() == {"a": 3 * MS}
    assert timeline.finish_copy().sums_ns() == {"b": 5 * MS}


@patient
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000))))
def test_all_intervals_sum_to_the_whole_time(intervals: list[tuple[int, int]]) -> None:
    clock = FakeClock()
    timeline = Timeline(HostTimestamps(clock.mono_ns), 0)
    for owner, milliseconds in intervals:
        timeline.switch_to(owner)
        clock.advance_ms(milliseconds)
    taken = timeline.finish_copy()
    assert sum(taken.sums_ns().values()) == clock.mono_ns() == taken.end
