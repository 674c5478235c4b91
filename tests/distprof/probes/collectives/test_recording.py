"""Tests of the records of collectives, from sources and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from support.simulated.clock import FakeClock

from distprof.probes.collectives.protocol import Entry, Loss, Seen
from distprof.probes.collectives.recording import CollectiveRecording
from distprof.records import Collectives, CollectiveWindow

MS = 1_000_000


@dataclass
class Known:
    """A source that sees what the test says."""

    on_wall_clock: bool
    seen: Seen = field(default_factory=Seen)
    unseen: str = ""
    name: str = "the test"
    began_ns: int = -1

    def open(self, began_ns: int) -> None:
        self.began_ns = began_ns

    def step_ended(self) -> None:
        pass

    def close(self) -> Seen:
        return self.seen


def two_steps(
    clock: FakeClock, ring: Known, messages: Known, between: Callable[[], None] = lambda: None
) -> tuple[CollectiveWindow, list[Collectives]]:
    """Records two steps of 10 ms, each with a collective after 2 ms; ``between`` runs in the first step."""
    recording = CollectiveRecording(clock, ring, messages, 1)
    recording.open()
    for iteration in (4, 5):
        clock.advance_ms(1)
        recording.step_begins()
        start = clock.mono_ns()
        clock.advance_ms(2)
        ring.seen.entries.append(Entry(clock.wall_ns(), "0", iteration, "all_reduce", 8, 8))
        clock.advance_ms(8)
        if iteration == 4:
            between()
        recording.step_ended(iteration, "training", start, clock.mono_ns())
    recording.close()
    window, *steps = recording.records()
    assert recording.records() == []
    assert isinstance(window, CollectiveWindow)
    return window, [step for step in steps if isinstance(step, Collectives)]


def test_sources_are_told_when_the_window_begins_on_their_clock() -> None:
    clock, ring, messages = FakeClock(mono_ns=70), Known(True), Known(False)
    two_steps(clock, ring, messages)
    assert (ring.began_ns, messages.began_ns) == (1_700_000_000_000_000_000, 70)


def test_wall_stamps_are_put_on_the_monotonic_clock_and_into_their_steps() -> None:
    clock = FakeClock(mono_ns=5 * MS)
    messages = Known(False, Seen([Entry(9 * MS, "1", 0, "send", 4, 0, peer=1, waited_from_ns=10, waited_until_ns=12)]))
    window, (first, second) = two_steps(clock, Known(True), messages)
    assert (window.source, window.message_source, window.clock_shift_ns) == ("the test", "the test", 0)
    assert (first.iteration, second.iteration) == (4, 5)
    assert first.enqueued_ns.tolist() == [8 * MS, 9 * MS] and second.enqueued_ns.tolist() == [19 * MS]
    assert (first.group_names, first.ops) == (("0", "1"), ("all_reduce", "send"))
    assert (first.group.tolist(), first.op.tolist(), first.peer.tolist()) == ([0, 1], [0, 1], [-1, 1])
    assert first.waited_until_ns.tolist() == [0, 12] and len(second.waited_until_ns) == 0
    assert first.number.tolist() == [4, 0] and len(first.duration_ns) == 0


def test_a_wall_clock_that_drifts_is_corrected() -> None:
    """The wall clock gains 3 ms in the first step, after its collective; the second step begins with that known."""
    window, (first, second) = two_steps(clock := FakeClock(), Known(True), Known(False), lambda: clock.jump_wall_ms(3))
    assert window.clock_shift_ns == 3 * MS and window.unseen == ""
    assert second.enqueued_ns.tolist() == [14 * MS]
    assert 1 * MS <= first.enqueued_ns[0] <= 3 * MS


@pytest.mark.parametrize("jump_ms", [-3_600_000, 11, 3_600_000])
def test_a_wall_clock_that_is_set_is_told(jump_ms: float) -> None:
    """Sends and receives are stamped by the other clock: they stay."""
    messages = Known(False, Seen([Entry(5 * MS, "0", 0, "recv", 0, 4, peer=1)]))
    window, (first, _) = two_steps(clock := FakeClock(), Known(True), messages, lambda: clock.jump_wall_ms(jump_ms))
    assert (window.source, window.message_source) == ("", "the test")
    assert window.unseen == "the wall clock was set in the window, and collectives are stamped by it"
    assert [first.ops[op] for op in first.op] == ["recv"]


def test_lost_entries_are_counted_in_each_step_that_may_lack_them() -> None:
    began = 1_700_000_000_000_000_000
    losses = [Loss(began + 2 * MS, began + 5 * MS, 7), Loss(began + 6 * MS, began + 14 * MS, 2)]
    ring = Known(True, Seen(losses=losses, capacity=16, reads=3, read_ns=5))
    window, steps = two_steps(FakeClock(), ring, Known(False))
    assert [step.lost for step in steps] == [9, 2]
    assert (window.lost, window.capacity, window.reads, window.read_ns, window.entries) == (9, 16, 3, 5, 2)


def test_a_source_that_sees_nothing_says_why() -> None:
    window, steps = two_steps(FakeClock(), Known(True, unseen="broken"), Known(False, unseen="none"))
    assert (window.source, window.unseen, window.message_source, window.message_unseen) == ("", "broken", "", "none")
    assert steps == []
    window, steps = two_steps(FakeClock(), Known(True, unseen="broken"), Known(False))
    assert [len(step.number) for step in steps] == [0, 0] and np.array_equal(steps[0].enqueued_ns, np.zeros(0))
