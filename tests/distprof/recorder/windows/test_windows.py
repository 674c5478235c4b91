"""Further recording windows in a running job: planned from any thread, recorded from their start on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import X, sgd, step
from support.recording import Seen, Ticking, recorder, seen
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from distprof.recorder.recorder import Recorder
from distprof.recorder.windows.capture_plan import WindowRefused
from distprof.records import FORWARD, TRAINING, Counts, End, Memory, Plan, Step

_CALL = nn.Module.__call__
_BACKWARD = torch.autograd.graph._engine_run_backward


def train(steps: int, at: dict[int, Callable[[], object]], model: nn.Module | None = None) -> None:
    """Trains ``steps`` iterations; calls ``at[number]`` before iteration ``number``."""
    trained = model or nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    optimizer = sgd(trained)
    for number in range(steps):
        at.get(number, lambda: None)()
        step(trained, optimizer)


def recorded(folder: Path, job: Callable[[Recorder], object], **settings: Any) -> Seen:
    recording = recorder(folder, **settings)
    recording.arm()
    try:
        job(recording)
    finally:
        recording.finish()
    return seen(folder)


def on_another_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_two_windows_of_training_in_one_process(tmp_path: Path) -> None:
    numbers: list[int] = []

    def job(recording: Recorder) -> None:
        def plan() -> None:
            on_another_thread(lambda: numbers.append(recording.requests.plan(start=9, counted=1, timed=2)))

        train(15, {6: plan})

    found = recorded(tmp_path, job, warmup=1, count=True, timed=2)
    assert numbers == [1]
    assert found.of(Plan) == [Plan(1, 1, 2), Plan(9, 1, 2, window=1)]
    assert [(counts.iteration, counts.window) for counts in found.of(Counts)] == [(1, 0), (9, 1)]
    assert [(timed.iteration, timed.window) for timed in found.of(Step)] == [(2, 0), (3, 0), (10, 1), (11, 1)]
    assert [(memory.iteration, memory.window) for memory in found.of(Memory)] == [(2, 0), (10, 1)]
    assert found.of(End) == [End("window complete", 4), End("window complete", 12)]
    for number in range(4):
        assert found.forward_ms(number) == {"0": 10, "1": 1} and found.backward_ms(number) == {"0": 20, "1": 2}
    first, second = found.of(Counts)
    assert first.forward_macs.tolist() == second.forward_macs.tolist()


def test_two_windows_of_forwards_in_one_process(tmp_path: Path) -> None:
    """Without an optimizer the next window has to be planned before the one before it is over."""
    model = nn.Sequential(Ticking(10, 20))

    def job(recording: Recorder) -> None:
        with torch.no_grad():
            for number in range(12):
                if number == 2:
                    assert recording.requests.plan(start=6, counted=1, timed=1) == 1
                model(X)
        with pytest.raises(WindowRefused, match="no iteration is seen any more"):
            recording.requests.plan(start=100, counted=0, timed=1)

    found = recorded(tmp_path, job, warmup=1, count=True, timed=2)
    assert [(counts.iteration, counts.window, counts.mode) for counts in found.of(Counts)] == [
        (1, 0, FORWARD),
        (6, 1, FORWARD),
    ]
    assert [(timed.iteration, timed.window, timed.mode) for timed in found.of(Step)] == [
        (2, 0, FORWARD),
        (3, 0, FORWARD),
        (7, 1, FORWARD),
    ]


def test_a_window_may_follow_the_one_before_at_once(tmp_path: Path) -> None:
    def job(recording: Recorder) -> None:
        train(6, {1: lambda: recording.requests.plan(start=3, counted=0, timed=2)})

    found = recorded(tmp_path, job, warmup=1, timed=2)
    assert [(timed.iteration, timed.window) for timed in found.of(Step)] == [(1, 0), (2, 0), (3, 1), (4, 1)]


def test_a_plan_that_cannot_be_kept_is_refused_with_a_reason(tmp_path: Path) -> None:
    refused: list[str] = []

    def ask(recording: Recorder, start: int, counted: int = 0, timed: int = 1) -> None:
        with pytest.raises(WindowRefused) as caught:
            recording.requests.plan(start, counted, timed)
        refused.append(str(caught.value))

    def plan_twice(recording: Recorder) -> None:
        recording.requests.plan(9, 0, 1)
        ask(recording, 10)

    def job(recording: Recorder) -> None:
        ask(recording, 20)
        train(
            12,
            {
                1: lambda: ask(recording, 3),
                5: lambda: ask(recording, 4),
                6: lambda: ask(recording, 6),
                7: lambda: plan_twice(recording),
                9: lambda: ask(recording, 11, 0, 0),
            },
        )

    found = recorded(tmp_path, job, warmup=2, timed=2)
    assert refused == [
        "this process is not recorded: it has run no model as a rank",
        "iteration 3 is taken: window 0 ends before iteration 4",
        "iteration 4 has passed: iteration 5 is running",
        "iteration 6 has passed: iteration 6 is running",
        "window 1 is planned already, from iteration 9 on",
        "a window needs an iteration to count, to time or to trace, and counts one at most",
    ]
    assert [(timed.iteration, timed.window) for timed in found.of(Step)] == [(2, 0), (3, 0), (9, 1)]


def test_between_windows_only_the_optimizer_hook_remains(tmp_path: Path) -> None:
    hooks: list[int] = []

    def check() -> None:
        hooks.append(len(torch_optimizer._global_optimizer_post_hooks))
        assert nn.Module.__call__ is _CALL and torch.autograd.graph._engine_run_backward is _BACKWARD
        assert not torch_optimizer._global_optimizer_pre_hooks
        for name in ("forward", "forward_pre", "backward", "backward_pre"):
            assert not getattr(torch_module, f"_global_{name}_hooks")

    def job(recording: Recorder) -> None:
        train(12, {5: check, 6: lambda: recording.requests.plan(8, 1, 1), 7: check, 11: check})

    recorded(tmp_path, job, warmup=1, count=True, timed=2)
    assert hooks == [1, 1, 1] and not torch_optimizer._global_optimizer_post_hooks


def test_an_optimizer_that_comes_after_the_window_begins_no_other(tmp_path: Path) -> None:
    model = nn.Sequential(Ticking(10, 20))

    def job(recording: Recorder) -> None:
        train(5, {}, model)
        kept: list[Optimizer] = [sgd(model)]
        for _ in range(3):
            step(model, kept[0])
        recording.requests.plan(start=12, counted=0, timed=1)
        for _ in range(8):
            step(model, kept[0])

    found = recorded(tmp_path, job, warmup=1, timed=2)
    assert [(timed.iteration, timed.window) for timed in found.of(Step)] == [(1, 0), (2, 0), (12, 1)]


def test_iterations_that_end_with_a_backward_are_numbered_after_the_window(tmp_path: Path) -> None:
    """An optimizer a parameter, stepped in backward."""
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    own = {parameter: torch.optim.SGD([parameter], lr=0.01) for parameter in model.parameters()}

    def job(recording: Recorder) -> None:
        for parameter, optimizer in own.items():
            parameter.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())
        for number in range(14):
            if number == 7:
                recording.requests.plan(start=10, counted=1, timed=1)
            model(X).sum().backward()
            model.zero_grad()

    found = recorded(tmp_path, job, warmup=2, count=True, timed=1)
    assert [(counts.iteration, counts.window) for counts in found.of(Counts)] == [(2, 0), (10, 1)]
    assert [(timed.iteration, timed.window) for timed in found.of(Step)] == [(3, 0), (11, 1)]


def test_training_after_forwards_keeps_its_first_window(tmp_path: Path) -> None:
    """A window is planned before training begins: it is recorded in training, where the number of iterations is new."""
    model = nn.Sequential(Ticking(10, 20))

    def job(recording: Recorder) -> None:
        with torch.no_grad():
            for number in range(6):
                if number == 1:
                    recording.requests.plan(start=20, counted=0, timed=1)
                model(X)
        train(25, {}, model)

    found = recorded(tmp_path, job, warmup=1, timed=2)
    assert [(timed.mode, timed.iteration, timed.window) for timed in found.of(Step)] == [
        (FORWARD, 1, 0),
        (FORWARD, 2, 0),
        (TRAINING, 20, 1),
    ]
