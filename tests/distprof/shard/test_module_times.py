"""Steps written as they were stamped: readers add up what the rank did not."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.records import patient, written

from distprof.clock import FakeClock
from distprof.probes.timing.module_timer import NOBODY
from distprof.probes.timing.module_times import CallOrders, ModuleTimeSums
from distprof.probes.timing.timeline import MAX_PACKED, HostTimestamps, Timeline
from distprof.records import NO_ROW, Header, Record, Step
from distprof.shard.reader import parse_shard

HEADER = Header("run", 0, 1)
TURNS = st.lists(st.tuples(st.one_of(st.integers(-6, 5), st.just(NOBODY)), st.integers(0, 1 << 31)), max_size=8)


def step(**fields: Any) -> Step:
    return Step(3, "training", 5, 7, {"other": 7}, 1, 2, 2, 100, "rss", **fields)


def stamped(owners: list[int], stamps: list[int], calls: list[int]) -> Step:
    return step(owners=np.array(owners, "<i4"), stamps=np.array(stamps, "<u4"), calls=np.array(calls, "<u4"))


def read(*content: Record) -> tuple[list[Record], list[str]]:
    """The records that come back, without the header, and what was said of those that do not."""
    shard = parse_shard(written([HEADER, *content]))
    return shard.records[1:], shard.report.malformed


@patient
@given(TURNS, st.lists(TURNS, max_size=2), st.lists(st.integers(0, 5)), st.integers(0, 1 << 40))
@example([(0, 10)], [], [0], (1 << 32) - 5)  # the low words begin again in the middle of a turn
@example([(0, 1 << 31), (1, 1 << 31)], [], [0, 1], 0)  # too long for low words
@example([(2, 7), (~3, 5)], [], [0], 0)  # of rows that were not called
@example([(2, 7)], [[(0, 5), (~2, 6)]], [0], 0)
def test_a_reader_finds_the_times_however_they_were_written(
    last: list[tuple[int, int]], before: list[list[tuple[int, int]]], entered: list[int], start: int
) -> None:
    """``before``: intervals that were added up already, as there were too many to be kept; each with calls of row 0."""
    clock, expected = FakeClock(), Counter[int]()
    clock.advance_ms(start / 1e6)
    timeline, sums = Timeline(HostTimestamps(clock.mono_ns), NOBODY), ModuleTimeSums(CallOrders())
    for intervals in [*before, last]:
        timeline.restart(NOBODY)
        for owner, nanoseconds in intervals:
            timeline.switch_to(owner)
            clock.advance_ms(nanoseconds / 1e6)
            expected[owner] += nanoseconds
        if intervals is not last:
            sums.add(timeline.finish(), [0])
    fields = sums.fields_with(timeline.finish(), entered)
    assert ("stamps" in fields) == (not before and sum(nanoseconds for _, nanoseconds in last) < 1 << 32)
    (found,), malformed = read(step(**fields))
    assert not malformed and isinstance(found, Step)
    assert not len(found.owners) and not len(found.stamps)
    rows = len(found.forward_ns)
    assert len(found.backward_ns) == rows
    assert found.forward_ns.tolist() == [expected[row] for row in range(rows)]
    assert found.backward_ns.tolist() == [expected[~row] for row in range(rows)]
    assert not any(expected[row] or expected[~row] for row in range(rows, 6))
    assert +Counter(dict(enumerate(found.calls.tolist()))) == Counter(entered + [0] * len(before))


def test_many_turns_are_added_up_by_the_rank() -> None:
    clock, sums = FakeClock(), ModuleTimeSums(CallOrders())
    timeline = Timeline(HostTimestamps(clock.mono_ns), NOBODY)
    for _ in range(MAX_PACKED):
        clock.advance_ms(3e-6)
        timeline.switch_to(0)
    fields = sums.fields_with(timeline.finish(), [0])
    assert "stamps" not in fields and fields["forward_ns"].tolist() == [3 * (MAX_PACKED - 1)]


@pytest.mark.parametrize(
    ("unsound", "why"),
    [
        (stamped([0, NO_ROW], [1, 2], [1]), "2 turns cannot have 2 stamps"),
        (stamped([], [1], [1]), "stamps of no turns"),
        (stamped([1], [1, 2], [1]), "none of its 1 modules"),
        (stamped([-2], [1, 2], [1]), "none of its 1 modules"),
        (stamped([NO_ROW - 1], [1, 2], [1]), "none of its 1 modules"),
        (stamped([-(1 << 31)], [1, 2], [1]), "none of its 1 modules"),
        (dataclasses.replace(stamped([0], [1, 2], [1]), forward_ns=np.ones(1, "<i8")), "twice"),
        (dataclasses.replace(stamped([0], [1, 2], [1]), backward_ns=np.ones(1, "<i8")), "twice"),
    ],
)
def test_turns_that_cannot_be_cost_their_record_alone(unsound: Step, why: str) -> None:
    """What a few bytes claim makes no big table: rows are below the length of ``calls``."""
    sound = stamped([0, ~0, NO_ROW], [5, 7, 10, 11], [1])
    (found,), (said,) = read(sound, unsound)
    assert isinstance(found, Step) and why in said
    assert (found.forward_ns.tolist(), found.backward_ns.tolist()) == ([2], [3])
