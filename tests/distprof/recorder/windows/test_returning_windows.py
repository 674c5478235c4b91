"""Tests of windows that come back: where they are, that a shard of many stays small, and what is left of old ones."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import sgd, step, training
from support.recording import Ticking, record, recorder, seen
from torch import nn

from distprof.config.settings import Settings
from distprof.errors import UsageError
from distprof.merge.load.run import load_run
from distprof.recorder.recorder import Recorder
from distprof.recorder.windows.capture_plan import WindowRefused
from distprof.records import (
    PHASES,
    TRAINING,
    Counts,
    End,
    ExpertLoad,
    Header,
    Plan,
    Step,
    Timeline,
    WindowSummary,
)
from distprof.shard.reader import read_shard
from distprof.shard.writer import MemorySink, ShardWriter

MS = 1_000_000


@contextmanager
def armed(folder: Path, **settings: Any) -> Iterator[Recorder]:
    recording = recorder(folder, **settings)
    recording.arm()
    try:
        yield recording
    finally:
        recording.finish()


def train(iterations: int, after: Callable[[int], None]) -> None:
    model = nn.Sequential(Ticking(10, 20))
    optimizer = sgd(model)
    for iteration in range(iterations):
        step(model, optimizer)
        after(iteration)


def test_windows_come_back_at_the_same_iterations_on_every_rank(tmp_path: Path) -> None:
    found = record(tmp_path, training(32), warmup=2, count=True, timed=2, every=10)
    assert [(plan.window, plan.start) for plan in found.of(Plan)] == [(0, 2), (1, 12), (2, 22), (3, 32)]
    assert [(one.window, one.iteration) for one in found.of(Counts)] == [(0, 2), (1, 12), (2, 22)]
    steps = [(one.window, one.iteration) for one in found.of(Step)]
    assert steps == [(0, 3), (0, 4), (1, 13), (1, 14), (2, 23), (2, 24)]
    assert found.of(End)[-1] == End("exit", 32)
    (data,) = load_run(tmp_path).ranks
    assert [number for _, number in data.windows] == [0, 1, 2]


def test_a_window_cannot_come_back_before_it_has_ended() -> None:
    assert Settings(timed=10, every=13).every == 13
    with pytest.raises(UsageError, match="windows of up to 12 iterations cannot come back every 12"):
        Settings(timed=10, every=12)


def test_nobody_else_plans_windows_then(tmp_path: Path) -> None:
    refusals: list[WindowRefused] = []

    def ask(iteration: int) -> None:
        if iteration == 5:
            with pytest.raises(WindowRefused, match="come back by themselves, every 10 iterations") as refused:
                recording.requests.plan(start=8, counted=0, timed=1)
            refusals.append(refused.value)

    with armed(tmp_path, warmup=1, timed=1, every=10) as recording:
        train(7, ask)
    assert len(refusals) == 1


def test_old_windows_are_reduced_to_summaries(tmp_path: Path) -> None:
    found = record(tmp_path, training(98), warmup=1, count=True, timed=2, every=10)
    whole = [plan.window for plan in found.of(Plan)]
    assert whole == [5, 6, 7, 8, 9, 10]  # ten windows; at the ninth, all but four were reduced
    summaries = found.of(WindowSummary)
    took = (10 + 1 + 20 + 2 + 3) * MS
    phases = {"forward": 22 * MS, "backward": 44 * MS, "optimizer": 6 * MS}
    for window, summary in enumerate(summaries):
        assert (summary.window, summary.start, summary.iterations) == (window, 10 * window + 2, 2)
        assert (summary.duration_ns, summary.longest_ns, summary.samples, summary.tokens) == (2 * took, took, 8, 0)
        assert {phase: taken for phase, taken in summary.phases_ns.items() if taken} == phases
    assert len(summaries) == 5 and {one.window for one in found.of(Step)} == {5, 6, 7, 8, 9}
    assert {one.window for one in found.of(Timeline)} == {5, 6, 7, 8, 9}
    assert not found.shard.report.damaged and found.kinds[0] == "header"
    # One end of all windows before the shard was reduced, one of the window after, and that of the script.
    assert [found.kinds.count(kind) for kind in ("tree", "parameters", "end")] == [1, 1, 3]
    (data,) = load_run(tmp_path).ranks
    assert [number for _, number in data.windows] == [5, 6, 7, 8, 9]


class Experts(nn.Module):
    """A layer whose loads are records, too."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts[0](x) + self.experts[1](x[:1])


def test_the_disk_stays_bounded_over_10_000_iterations(tmp_path: Path) -> None:
    sizes = []
    model = nn.Sequential(Experts())
    optimizer = sgd(model)
    shards = tmp_path / "shards"
    with armed(tmp_path, warmup=1, count=True, timed=2, every=200):
        for iteration in range(10_000):
            if iteration % 200 < 6:  # the windows are there; between them nothing is looked at but the optimizer
                model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if iteration % 200 == 199:
                sizes.append(sum(path.stat().st_size for path in shards.iterdir()))
    found = seen(tmp_path)
    assert len(found.of(WindowSummary)) + len(found.of(Plan)) == 51 and len(found.of(ExpertLoad)) <= 16
    macs = {sum(row.model_macs for row in one.device_work) for one in found.of(Counts)}
    assert {one.macs for one in found.of(WindowSummary)} == macs and min(macs) > 0
    (data,) = load_run(tmp_path).ranks
    assert data.reduced == tuple(found.of(WindowSummary)) and all(one.median_ns > 0 for one in data.reduced)
    one_window = max(after - before for before, after in itertools.pairwise(sizes))
    assert one_window > 500
    most = sizes[0] + 8 * one_window  # eight whole windows, and 200 bytes for each summary
    assert max(sizes) < most + 50 * 200, sizes
    assert len(list(shards.iterdir())) == 1


def test_a_shard_that_cannot_be_written_anew_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distprof.recorder.shard_output.os.replace", no_space)
    found = record(tmp_path, training(98), warmup=1, timed=2, every=10)
    assert [plan.window for plan in found.of(Plan)] == list(range(11))
    assert not found.of(WindowSummary) and not found.shard.report.damaged
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["rank00000.g0.msgpack"]


def test_a_shard_that_was_moved_is_left_alone(tmp_path: Path) -> None:
    shard = tmp_path / "shards" / "rank00000.g0.msgpack"

    def move(iteration: int) -> None:
        if iteration == 50:
            os.rename(shard, tmp_path / "moved")  # noqa: PTH104
            shard.write_bytes(b"of somebody else")

    with armed(tmp_path, warmup=1, timed=2, every=10):
        train(98, move)
    assert shard.read_bytes() == b"of somebody else"
    assert len([one for one in read_shard(tmp_path / "moved").records if isinstance(one, Plan)]) == 11


def test_a_summary_with_large_figures_has_319_bytes() -> None:
    """docs/SCALE.md multiplies it by the windows of a week."""
    phases = dict.fromkeys(PHASES, 123_456_789_012)
    figures: dict[str, Any] = {
        "duration_ns": 9_876_543_210,
        "longest_ns": 1_234_567_890,
        "median_ns": 987_654_321,
        "macs": 10**15,
    }
    amounts: dict[str, Any] = {"samples": 80, "tokens": 10_240, "peak_memory_bytes": 1 << 36, "phases_ns": phases}
    writer = ShardWriter(sink := MemorySink())
    writer.write(Header("run", 0, 1))
    before = len(sink.data)
    writer.write(WindowSummary(1_000, TRAINING, 1_000_000, 10, **figures, **amounts))
    assert len(sink.data) - before == 319
