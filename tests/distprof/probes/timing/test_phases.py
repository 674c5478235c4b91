"""Tests of the phases of an iteration in many loops, on a clock that the test advances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import patient
from support.simulated.clock import FakeClock

from distprof.probes.timing.phases import BACKWARD, DATA, EVALUATION, FORWARD, OPTIMIZER, OTHER, OUTSIDE, PhaseClock
from distprof.probes.timing.timeline import HostTimestamps
from distprof.records import PHASES

MS = 1_000_000


class Loop:
    """A training loop whose parts take given times."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.phases = PhaseClock(HostTimestamps(self.clock.mono_ns))

    @contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        self.phases.enter(phase)
        yield
        self.phases.leave()

    def spend(self, phase: str, milliseconds: float) -> None:
        with self.inside(phase):
            self.idle(milliseconds)

    def idle(self, milliseconds: float) -> None:
        self.clock.advance_ms(milliseconds)

    def sums_ms(self) -> dict[str, float]:
        """Returns the times of the phases that took any; their sum must be the iteration's."""
        sums = self.phases.finish().sums_ns()
        assert set(sums) <= set(PHASES)
        assert sum(sums.values()) == self.clock.mono_ns()
        return {phase: length / MS for phase, length in sums.items() if length}


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_plain_iteration(loop: Loop) -> None:
    loop.spend(DATA, 7)
    loop.idle(1)  # moving the batch to the device, say
    loop.spend(FORWARD, 20)
    loop.spend(BACKWARD, 40)
    loop.idle(2)  # logging
    loop.spend(OPTIMIZER, 5)
    assert loop.sums_ms() == {DATA: 7, FORWARD: 20, BACKWARD: 40, OPTIMIZER: 5, OTHER: 3}


def test_it_records_whether_a_loader_was_seen(loop: Loop) -> None:
    loop.spend(FORWARD, 20)
    assert not loop.phases.waited_for_data
    loop.spend(DATA, 0)
    assert loop.phases.waited_for_data


def test_time_between_forward_and_backward_is_outside(loop: Loop) -> None:
    """A loss in the script, the next batch, a receive."""
    loop.spend(FORWARD, 20)
    loop.idle(3)
    loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {FORWARD: 20, OUTSIDE: 3, BACKWARD: 40}


def test_time_between_two_forwards_is_outside(loop: Loop) -> None:
    """An encoder, work on its output, a decoder, the loss."""
    loop.spend(FORWARD, 20)
    loop.idle(3)
    loop.spend(FORWARD, 10)
    loop.idle(1)
    loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {FORWARD: 30, OUTSIDE: 4, BACKWARD: 40}


def test_time_after_the_last_forward_is_other(loop: Loop) -> None:
    loop.spend(FORWARD, 20)
    loop.idle(3)
    assert loop.sums_ms() == {FORWARD: 20, OTHER: 3}


def test_gradient_accumulation(loop: Loop) -> None:
    for _ in range(4):
        loop.spend(DATA, 2)
        loop.spend(FORWARD, 20)
        loop.idle(1)
        loop.spend(BACKWARD, 40)
        loop.idle(0.5)
    loop.spend(OPTIMIZER, 5)
    assert loop.sums_ms() == {DATA: 8, FORWARD: 80, OUTSIDE: 4, BACKWARD: 160, OTHER: 2, OPTIMIZER: 5}


def test_the_next_batch_may_be_fetched_before_the_backward(loop: Loop) -> None:
    """A prefetching loop: the loss is still outside of modules, and the wait is data."""
    loop.spend(FORWARD, 20)
    loop.idle(1)
    loop.spend(DATA, 7)
    loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {FORWARD: 20, OUTSIDE: 1, DATA: 7, BACKWARD: 40}


def evaluate(loop: Loop, batches: int) -> None:
    for _ in range(batches):
        loop.spend(DATA, 3)
        loop.idle(0.5)  # to the device
        loop.spend(EVALUATION, 10)
        loop.idle(1)  # metrics


def test_evaluation_includes_its_data_waits_and_metrics(loop: Loop) -> None:
    evaluate(loop, 5)
    loop.spend(DATA, 0.25)  # the end of the evaluation's loader
    loop.spend(DATA, 7)
    loop.spend(FORWARD, 20)
    loop.spend(BACKWARD, 40)
    loop.spend(OPTIMIZER, 5)
    sums = loop.sums_ms()
    assert sums[DATA] == pytest.approx(7, abs=0.25)
    # What leads from a batch to its forward, and the last metrics, nobody can tell from the loop's own doings.
    assert 5 * 13 + 4 * 1 <= sums[EVALUATION] + 0.25 <= 5 * 14.5 + 0.25
    assert sums[FORWARD] == 20


def test_evaluation_in_the_middle_of_accumulation(loop: Loop) -> None:
    loop.spend(DATA, 7)
    loop.spend(FORWARD, 20)
    loop.spend(BACKWARD, 40)
    evaluate(loop, 3)
    loop.spend(DATA, 7)
    loop.spend(FORWARD, 20)
    loop.spend(BACKWARD, 40)
    sums = loop.sums_ms()
    assert (sums[DATA], sums[FORWARD], sums[BACKWARD]) == (14, 40, 80)


def test_a_teachers_forward_leaves_the_batch_to_training(loop: Loop) -> None:
    """A forward without gradient on the batch that the student trains on."""
    loop.spend(DATA, 7)
    loop.spend(EVALUATION, 15)
    loop.spend(FORWARD, 20)
    loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {DATA: 7, EVALUATION: 15, FORWARD: 20, BACKWARD: 40}


def test_a_teacher_in_every_micro_batch(loop: Loop) -> None:
    for _ in range(3):
        loop.spend(DATA, 7)
        loop.spend(EVALUATION, 15)
        loop.spend(FORWARD, 20)
        loop.idle(1)
        loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {DATA: 21, EVALUATION: 45, FORWARD: 60, OUTSIDE: 3, BACKWARD: 120}


def test_phases_inside_a_closure(loop: Loop) -> None:
    """LBFGS: the closure is forward and backward, the rest of the step is the optimizer's."""
    with loop.inside(OPTIMIZER):
        for _ in range(3):
            loop.idle(1)
            loop.spend(FORWARD, 20)
            loop.spend(BACKWARD, 40)
        loop.idle(2)
    assert loop.sums_ms() == {OPTIMIZER: 5, FORWARD: 60, BACKWARD: 120}


def test_autograd_grad_inside_a_forward_is_forward(loop: Loop) -> None:
    """Forces from an energy: the model's forward differentiates."""
    with loop.inside(FORWARD):
        loop.idle(10)
        loop.spend(BACKWARD, 5)
        loop.idle(1)
    loop.spend(BACKWARD, 40)
    assert loop.sums_ms() == {FORWARD: 16, BACKWARD: 40}


def test_a_loader_inside_a_forward_is_forward_and_no_data_wait(loop: Loop) -> None:
    with loop.inside(FORWARD):
        loop.spend(DATA, 5)
    assert not loop.phases.waited_for_data
    assert loop.sums_ms() == {FORWARD: 5}


def test_backward_inside_backward_is_backward(loop: Loop) -> None:
    """Reentrant checkpointing."""
    with loop.inside(BACKWARD):
        loop.idle(10)
        loop.spend(BACKWARD, 5)
        loop.idle(10)
    assert loop.sums_ms() == {BACKWARD: 25}


def test_what_began_before_the_iteration_may_end_in_it(loop: Loop) -> None:
    """An iteration that ends inside a backward: an optimizer a parameter, stepped by its gradient's hook."""
    loop.idle(4)
    loop.phases.leave()
    loop.spend(FORWARD, 20)
    assert loop.sums_ms() == {FORWARD: 20, OTHER: 4}


def test_a_phase_that_never_ends_still_adds_up(loop: Loop) -> None:
    """A closure that raised: the optimizer's end is never reported."""
    loop.phases.enter(OPTIMIZER)
    loop.idle(5)
    loop.spend(FORWARD, 20)
    assert loop.sums_ms() == {OPTIMIZER: 5, FORWARD: 20}


LEAVE = "leave"
SPANS = [DATA, FORWARD, BACKWARD, OPTIMIZER, EVALUATION]


@patient
@given(st.lists(st.tuples(st.sampled_from([*SPANS, *[LEAVE] * 5]), st.integers(0, 100)), max_size=60))
def test_nested_phases_add_up(job: list[tuple[str, int]]) -> None:
    loop = Loop()
    for event, milliseconds in job:
        loop.idle(milliseconds)
        loop.phases.leave() if event == LEAVE else loop.phases.enter(event)
    loop.sums_ms()


@patient
@given(st.lists(st.tuples(st.sampled_from([DATA, FORWARD, BACKWARD, OPTIMIZER]), st.integers(1, 100))))
def test_plain_phases_keep_their_times(job: list[tuple[str, int]]) -> None:
    """Only the phase of the time between them is not checked."""
    loop, took = Loop(), dict.fromkeys(PHASES, 0)
    for phase, milliseconds in job:
        loop.spend(phase, milliseconds)
        took[phase] += milliseconds
    assert loop.sums_ms() == {phase: milliseconds for phase, milliseconds in took.items() if milliseconds}


def test_a_long_evaluation_is_visited_once(loop: Loop) -> None:
    """Naming the intervals of an evaluation of n batches visits each a few times, not n times."""

    class Counting(list[str]):
        looked_at = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            Counting.looked_at += 1
            return super().__getitem__(index)

    loop.phases.timeline.owners = Counting(loop.phases.timeline.owners)
    for _ in range(1_000):
        loop.spend(DATA, 1)
        loop.spend(EVALUATION, 2)
    loop.spend(FORWARD, 5)
    loop.spend(BACKWARD, 10)
    assert loop.sums_ms() == {DATA: 1, EVALUATION: 2_999, FORWARD: 5, BACKWARD: 10}
    assert Counting.looked_at < 20_000
