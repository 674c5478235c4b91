"""Tests of the step clock alone, with the events of many kinds of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import patient

from distprof.recorder.step_clock import Boundary, StepClock
from distprof.recorder.windows.capture_plan import CapturePlan, StepKind
from distprof.records import FORWARD, TRAINING


class Optimizer:
    """Represents an optimizer: only its identity matters."""


D, G, SGD = Optimizer(), Optimizer(), Optimizer()
F, NO_GRAD, B = "forward with gradient", "forward without", "backward"

Event = str | Optimizer
SMALL: list[Event] = [F, B]  # a micro-batch
STEP: list[Event] = [F, B, SGD]


@dataclass
class Iteration:
    """An iteration that the clock ended: its events since the boundary before."""

    number: int
    mode: str
    kind: StepKind
    events: list[Event] = field(default_factory=list)


def tell(clock: StepClock, event: Event) -> Boundary:
    if event == B:
        clock.backward_began()
        return Boundary.NONE
    if isinstance(event, Optimizer):
        return clock.optimizer_stepped(event)
    return clock.forward_ended(event == F)


def run(
    events: Iterable[Event], warmup: int = 0, counted: int = 1, timed: int = 10
) -> tuple[StepClock, list[Iteration]]:
    """Returns the clock after these events, and the iterations that it ended."""
    clock, closed = StepClock(CapturePlan(warmup, counted, timed)), []
    since: list[Event] = []
    for event in events:
        since.append(event)
        number, kind = clock.iteration, clock.kind
        boundary = tell(clock, event)
        if boundary is Boundary.END:
            closed.append(Iteration(number, clock.mode, kind, since))
        if boundary is not Boundary.NONE:
            since = []
    return clock, closed


def numbers(closed: Sequence[Iteration], mode: str = TRAINING) -> list[int]:
    return [iteration.number for iteration in closed if iteration.mode == mode]


def test_plain_training_is_one_iteration_a_step() -> None:
    clock, closed = run(STEP * 5)
    assert numbers(closed) == [0, 1, 2, 3, 4]
    assert all(iteration.events == [F, B, SGD] for iteration in closed)
    assert clock.mode == TRAINING


def test_gradient_accumulation_is_inside_the_iteration() -> None:
    _, closed = run([*SMALL * 4, SGD] * 3)
    assert [iteration.events for iteration in closed] == [[*SMALL * 4, SGD]] * 3


def test_a_long_accumulation_is_waited_for() -> None:
    """60 micro-batches before the first step of the optimizer are not 60 iterations of inference."""
    _, closed = run([*SMALL * 60, SGD] * 3)
    assert [len(iteration.events) for iteration in closed] == [121] * 3


@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_window_follows_the_warm_up(warmup: int) -> None:
    _, closed = run(STEP * (warmup + 5), warmup=warmup, counted=1, timed=3)
    warm, window = closed[:warmup], closed[warmup:]
    assert all(iteration.kind is StepKind.WARMUP for iteration in warm)
    assert [iteration.kind for iteration in window] == [
        StepKind.COUNTED,
        StepKind.TIMED,
        StepKind.TIMED,
        StepKind.TIMED,
        StepKind.DONE,
    ]


def test_nothing_is_counted_when_counting_is_off() -> None:
    _, closed = run(STEP * 4, warmup=1, counted=0, timed=2)
    assert [iteration.kind for iteration in closed] == [StepKind.WARMUP, StepKind.TIMED, StepKind.TIMED, StepKind.DONE]


def test_more_optimizers_than_any_patience_make_one_iteration() -> None:
    """One optimizer for each parameter, in a loop after backward."""
    many = [Optimizer() for _ in range(300)]
    _, closed = run([F, B, *many] * 10, warmup=1, counted=1, timed=3)
    held = {iteration.number: iteration for iteration in closed if iteration.mode == TRAINING}
    assert [held[number].events for number in range(1, 5)] == [[F, B, *many]] * 4
    assert len(closed) == 10


def test_window_ends_with_new_optimizers_each_iteration() -> None:
    clock = StepClock(CapturePlan(1, 1, 3))
    for _ in range(30):
        of_a_task = Optimizer()
        for event in (F, B, of_a_task, F, B, SGD):
            tell(clock, event)
    assert clock.kind is StepKind.DONE


GAN_CYCLE: list[Event] = [NO_GRAD, F, F, B, D, F, F, B, G]
CRITIC: list[Event] = [NO_GRAD, F, F, B, D]
WGAN_CYCLE: list[Event] = [*CRITIC * 5, F, F, B, G]


@pytest.mark.parametrize("cycle", [GAN_CYCLE, WGAN_CYCLE], ids=["GAN", "WGAN, 5 to 1"])
@pytest.mark.parametrize("warmup", [0, 1, 4, 5, 6])
def test_two_optimizers_make_one_iteration(cycle: list[Event], warmup: int) -> None:
    """Whole cycles are valid in the end, whatever was recorded before the second optimizer, in a window that lasts."""
    _, closed = run(cycle * 30, warmup=warmup, counted=1, timed=5)
    held = {iteration.number: iteration for iteration in closed if iteration.mode == TRAINING}
    window = [held[number] for number in range(warmup, warmup + 6)]
    assert [iteration.kind for iteration in window] == [StepKind.COUNTED, *[StepKind.TIMED] * 5]
    assert all(iteration.events == cycle for iteration in window)


def test_optimizers_that_step_together_make_one_iteration() -> None:
    """One for matrices, one for the rest; and one for each parameter, stepped as its gradient arrives."""
    many = [Optimizer() for _ in range(100)]
    _, closed = run([F, B, *many] * 10, warmup=0, counted=1, timed=3)
    held = {iteration.number: iteration for iteration in closed}
    assert all(held[number].events == [F, B, *many] for number in range(4))


def test_idle_closing_optimizer_is_replaced() -> None:
    """A calibration with a separate optimizer that stays in memory: training goes on without it."""
    calibration = Optimizer()
    events: list[Event] = [*STEP * 3, F, B, calibration, *STEP * 1000]
    _, closed = run(events, warmup=5, counted=1, timed=3)
    window = [iteration for iteration in closed if iteration.kind is StepKind.TIMED]
    assert len(window) == 3
    assert all(iteration.events == [F, B, SGD] for iteration in window)


def test_a_new_optimizer_for_every_batch_still_gives_iterations() -> None:
    """One image after the other is optimised, each by a new optimizer."""

    def images() -> Iterable[Event]:
        for _ in range(20):
            optimizer = Optimizer()
            step: list[Event] = [F, B, optimizer]
            yield from step * 3
            del step
            del optimizer

    clock = StepClock(CapturePlan(2, 1, 10))
    for event in images():
        tell(clock, event)
        del event
    assert clock.kind is StepKind.DONE


def test_deleted_closing_optimizer_is_replaced_at_once() -> None:
    clock, short_lived = StepClock(CapturePlan(0, 0, 100)), Optimizer()
    for event in [*STEP, F, B, short_lived, *STEP]:
        tell(clock, event)
    del short_lived, event
    before = clock.iteration
    assert [tell(clock, event) for event in STEP][-1] is Boundary.END
    assert clock.iteration == before + 1


def test_evaluation_before_training_does_not_count_as_training() -> None:
    clock, closed = run([NO_GRAD] * 7 + [F, B, SGD] * 3, warmup=5)
    assert numbers(closed, FORWARD) == list(range(7))
    assert numbers(closed) == [1, 2]  # the first step only shows that training has begun
    assert clock.iteration == 3


def test_first_iteration_without_warmup() -> None:
    _, closed = run([NO_GRAD, *STEP * 3], warmup=0)
    assert numbers(closed) == [0, 1]
    assert closed[-2].kind is StepKind.COUNTED


def test_evaluation_between_steps_is_inside_the_iteration() -> None:
    _, closed = run([F, B, SGD, *[NO_GRAD] * 20] * 3)
    assert numbers(closed) == [0, 1, 2]
    assert closed[1].events == [*[NO_GRAD] * 20, F, B, SGD]


def test_inference_has_one_iteration_a_forward() -> None:
    clock, closed = run([NO_GRAD] * 6, warmup=2, counted=1, timed=2)
    assert clock.mode == FORWARD
    assert [iteration.kind for iteration in closed] == [
        *[StepKind.WARMUP] * 2,
        StepKind.COUNTED,
        *[StepKind.TIMED] * 2,
        StepKind.DONE,
    ]


def test_patience_without_backward() -> None:
    clock, closed = run([F] * 12)
    assert clock.mode == FORWARD
    assert numbers(closed, FORWARD) == list(range(len(closed)))
    assert len(closed) >= 7
    assert all(iteration.events == [F] for iteration in closed)


def test_manual_updates_become_iterations_in_the_end() -> None:
    _, closed = run([F, B] * 80)
    assert len(closed) >= 15
    assert all(iteration.events.count(F) == 1 for iteration in closed)


def test_forward_before_manual_updates() -> None:
    _, closed = run([*[NO_GRAD] * 3, *[F, B] * 80])
    assert all(sum(event in (F, NO_GRAD) for event in iteration.events) == 1 for iteration in closed)


events = st.lists(st.sampled_from([F, NO_GRAD, B, D, G, SGD]), max_size=400)


@pytest.mark.parametrize("warmup", [0, 5])
def test_pipeline_is_waited_for_without_limit(warmup: int) -> None:
    clock = StepClock(CapturePlan(warmup, 1, 1))
    clock.pipeline_seen()
    for number in range(2):
        boundaries = [tell(clock, event) for event in [F] * 300 + [B] * 300 + [SGD]]
        assert boundaries == [Boundary.NONE] * 600 + [Boundary.END]
        assert (clock.iteration, clock.mode) == (number + 1, TRAINING)


windows = st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(1, 5))


@patient
@given(events, windows)
def test_whatever_happens_iterations_are_numbered_without_gaps(job: list[Event], window: tuple[int, int, int]) -> None:
    """END takes the next number; RESTART begins the running iteration again, or the window, or the mode."""
    clock = StepClock(CapturePlan(*window))
    for event in job:
        number, mode, kind = clock.iteration, clock.mode, clock.kind
        boundary = tell(clock, event)
        if boundary is Boundary.END:
            assert clock.iteration == number + 1
        elif boundary is Boundary.RESTART and clock.mode != mode:
            assert clock.iteration == min(1, window[0])  # the first has ended, unless it was to be recorded
        elif boundary is Boundary.RESTART:
            assert clock.iteration in (number, min(number, window[0]))
        else:
            assert (clock.iteration, clock.mode, clock.kind) == (number, mode, kind)


@patient
@given(events, windows)
def test_whatever_happens_kinds_come_in_order(job: list[Event], window: tuple[int, int, int]) -> None:
    order = [StepKind.WARMUP, StepKind.QUIET, StepKind.COUNTED, StepKind.TIMED, StepKind.DONE]
    _, closed = run(job, *window)
    by_number = {(iteration.mode, iteration.number): order.index(iteration.kind) for iteration in closed}
    for mode in (FORWARD, TRAINING):
        kinds = [kind for (its_mode, _), kind in sorted(by_number.items()) if its_mode == mode]
        assert kinds == sorted(kinds)


@patient
@given(events)
def test_property_of_all_iterations(job: list[Event]) -> None:
    _, closed = run(job)
    for iteration in closed:
        if iteration.mode == FORWARD:
            assert sum(event in (F, NO_GRAD) for event in iteration.events) == 1
        else:
            assert isinstance(iteration.events[-1], Optimizer)
