"""Tests of the timed probe with timestamps that are readable only later, as on an accelerator: only the end waits."""

from __future__ import annotations

import gc
from collections.abc import Callable, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.recording import Seen, Ticking, clock, record, train
from torch import nn

from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.probe import TimedProbe
from distprof.probes.timing.timeline import Timestamps
from distprof.records import Array, Step, Timeline


class LateStamps(Timestamps):
    """Timestamps of the test's clock that are readable after ``delay`` later ones."""

    immediate = False
    delay = 0
    waits: list[int]

    def __init__(self, host_ns: Callable[[], int]) -> None:
        self.host_ns = host_ns
        type(self).waits = []
        self.taken = 0
        self.times: list[int] = []

    def now(self) -> int:
        self.times.append(clock.mono_ns())
        return len(self.times) - 1

    def ready(self, timestamp: int) -> bool:
        return len(self.times) - timestamp > self.delay

    def wait(self, timestamp: int) -> None:
        type(self).waits.append(timestamp)
        self.times += [clock.mono_ns()] * self.delay

    def buffer(self) -> list[int]:
        return []

    def length_ns(self, end: int, start: int, /) -> int:
        assert self.ready(end), "read too early"
        return self.times[end] - self.times[start]

    def moments_ns(self, timestamps: MutableSequence[int]) -> Array:
        assert all(map(self.ready, timestamps)), "read too early"
        return np.array([self.times[timestamp] for timestamp in timestamps], np.int64)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> type[LateStamps]:
    """Makes the timed probe use these timestamps, as if models ran on an accelerator."""

    def probe(
        patch: Any, listener: Any, on_error: Any, time: Any, device: str, expert_rows: Any, *others: Any, **named: Any
    ) -> TimedProbe:
        return TimedProbe(patch, listener, on_error, time, "cuda", expert_rows, *others, **named)

    monkeypatch.setattr("distprof.recorder.probe_switch.TimedProbe", probe)
    monkeypatch.setattr("distprof.probes.timing.fast_path.CudaTimestamps", LateStamps)
    monkeypatch.setattr("distprof.probes.timing.probe.peak_memory", lambda device: ((lambda: 123), f"of {device}"))
    return LateStamps


def trained(folder: Path) -> Seen:
    model = nn.Sequential(Ticking(10, 20), Ticking(1, 2))
    return record(folder, lambda: train(model, torch.ones(4, 8), steps=5), warmup=1, timed=3)


@pytest.mark.parametrize("delay", [0, 1, 10, 1000])
def test_steps_are_read_when_ready_and_all_at_the_end(
    tmp_path: Path, accelerator: type[LateStamps], monkeypatch: pytest.MonkeyPatch, delay: int
) -> None:
    monkeypatch.setattr(accelerator, "delay", delay)
    found = trained(tmp_path)
    assert [step.iteration for step in found.of(Step)] == [1, 2, 3]
    for number in range(3):
        assert found.forward_ms(number) == {"0": 10, "1": 1}
        assert found.backward_ms(number) == {"0": 20, "1": 2}
        assert found.phases_ms(number) == {"forward": 11, "backward": 22, "optimizer": 3}
    assert found.of(Step)[0].memory_source == "of cuda"
    assert len(accelerator.waits) <= 3 and (accelerator.waits == []) == (delay == 0)
    for step, timeline in zip(found.of(Step), found.of(Timeline), strict=True):
        assert timeline.end_ns - timeline.start_ns == step.duration_ns  # on the host, which is as fast here
        assert [timeline.phase_names[place] for place in timeline.phase] == [
            *("other", "forward", "outside", "backward", "other", "optimizer", "other")
        ]
        assert len(timeline.turn_owner) == 0 and timeline.unseen.startswith("modules are timed by a device's events")


def test_micro_batches_are_summed_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of kept intervals is bounded, for any number of backward passes."""
    monkeypatch.setattr("distprof.probes.timing.module_timer.MAX_KEPT", 20)
    model = nn.Sequential(Ticking(2, 3), Ticking(5, 7))
    most: list[int] = []
    others = _timers()

    def job() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            timers: list[ModuleTimer] = []
            for _ in range(20):
                model(torch.ones(3, requires_grad=True)).sum().backward()
                timers = timers or [timer for timer in _timers() if timer not in others]
                most.extend(len(timer.timeline.owners) for timer in timers)
            optimizer.step()

    seen = record(tmp_path, job, timed=2)
    for step in range(2):
        assert seen.calls(step) == {"": 20, "0": 20, "1": 20}
        assert seen.forward_ms(step) == {"0": 40, "1": 100}
        assert seen.backward_ms(step) == {"0": 60, "1": 140}
    assert most and max(most) < 20 + 12  # those of a micro-batch


def _timers() -> list[ModuleTimer]:
    # By type: isinstance would ask the other objects of the process, weak proxies of what is gone among them.
    return [timer for timer in gc.get_objects() if type(timer) is ModuleTimer]
