"""Tests of optimizer steps while nothing is recorded: their short way counts what the long way would count."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loops import X, sgd
from support.recording import recorder, seen, total
from torch import nn

from distprof.recorder.quiet_steps import QuietSteps
from distprof.recorder.recorder import Recorder
from distprof.recorder.windows.capture_plan import WindowRefused
from distprof.records import Counts, Plan, Step


class _Job:
    """A training whose next iterations are chosen one by one."""

    def __init__(self, recording: Recorder) -> None:
        self._recording = recording
        self._model = nn.Linear(8, 1)
        self._first, self._second = sgd(self._model), sgd(nn.Linear(1, 1))
        self.numbers: list[int] = []  # of the running iteration after each one

    def run(self, action: str) -> None:
        model = self._model
        if action == "another optimizer":
            self._first = sgd(model)
        if action == "in backward":
            handle = model.weight.register_post_accumulate_grad_hook(lambda _: self._first.step())
            total(model(X)).backward()
            handle.remove()
        else:
            total(model(X)).backward()
            self._first.step()
        if action == "two optimizers":
            self._second.step()
        model.zero_grad()
        if action == "plan":
            try:
                self._recording.requests.plan(self._recording.iteration + 2, counted=1, timed=1)
            except WindowRefused:
                self.numbers.append(-1)
        self.numbers.append(self._recording.iteration)


_ACTIONS = ["plain", "plain", "plain", "plan", "another optimizer", "two optimizers", "in backward"]


def _found(actions: list[str], warmup: int, every: int) -> tuple[list[int], list[object], int]:
    """Returns the numbers of iterations, what was recorded where, and how many steps went the short way."""
    went: list[bool] = []
    stepped = QuietSteps.stepped

    def counted(self: QuietSteps, optimizer: torch.optim.Optimizer) -> bool:
        went.append(stepped(self, optimizer))
        return went[-1]

    with tempfile.TemporaryDirectory() as folder, patch.object(QuietSteps, "stepped", counted):
        recording = recorder(Path(folder), warmup=warmup, timed=1, every=every)
        recording.arm()
        try:
            job = _Job(recording)
            for action in actions:
                job.run(action)
        finally:
            recording.finish()
        recorded = [
            (record.KIND, record.window, record.start if isinstance(record, Plan) else record.iteration)
            for record in seen(Path(folder)).shard.records
            if isinstance(record, Plan | Counts | Step)
        ]
    return job.numbers, list(recorded), sum(went)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(_ACTIONS), min_size=1, max_size=20), st.sampled_from([0, 1, 14]), st.sampled_from([0, 6])
)
def test_the_short_way_counts_what_the_long_way_counts(actions: list[str], warmup: int, every: int) -> None:
    actions = ["plain"] * 12 + actions
    with patch.object(Recorder, "_quiet_steps", lambda _: None):
        *long_way, none = _found(actions, warmup, every)
    *short_way, some = _found(actions, warmup, every)
    assert short_way == long_way
    assert some and not none


def test_an_exception_from_outside_reaches_the_script_and_the_next_iterations_are_counted(tmp_path: Path) -> None:
    recording = recorder(tmp_path, warmup=0, timed=1)
    recording.arm()
    job = _Job(recording)
    try:
        for _ in range(4):
            job.run("plain")
        with patch.object(QuietSteps, "stepped", _raising(KeyboardInterrupt)), pytest.raises(KeyboardInterrupt):
            job.run("plain")
        job.run("plain")
        job.run("plan")
        for _ in range(4):
            job.run("plain")
    finally:
        recording.finish()
    assert job.numbers == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [one.window for one in seen(tmp_path).of(Step)] == [0, 1]


def _raising(kind: type[BaseException]) -> Callable[..., bool]:
    def stepped(*_: object) -> bool:
        raise kind

    return stepped
