"""Tests of failures in a recorder: the job computes the same, and the failure is reported once."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recording import record, recorder, seen
from support.simulated.clock import FakeClock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from distprof.records import End, Error
from distprof.shard.writer import FileSink


class Block(nn.Module):
    """A block with a checkpoint, experts and dropout, so that every part of the probes runs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.drop = nn.Linear(8, 8), nn.Dropout()
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.up, x, use_reentrant=False)
        return self.drop(x + self.experts[0](x[:, None])[:, 0])


def job() -> list[Any]:
    """Returns the exact losses and parameters of a few steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Block(), Block())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trace: list[Any] = []
    for (batch,) in DataLoader(TensorDataset(torch.randn(24, 8)), batch_size=4):
        loss = model(batch).square().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            trace += [loss.item(), model(batch).sum().item()]
    return [*trace, *(parameter.tolist() for parameter in model.parameters())]


WINDOW: dict[str, Any] = {"warmup": 1, "count": True, "timed": 2}


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    return job()


def run(folder: Path, **settings: Any) -> list[Any]:
    traces: list[list[Any]] = []
    recording = recorder(folder, **{**WINDOW, **settings})
    recording.arm()
    traces.append(job())
    recording.finish()
    (trace,) = traces
    return trace


def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("ours")


TARGETS = [
    "distprof.probes.model_watch.ModelWatch.enter",
    "distprof.probes.model_watch.ModelWatch.leave",
    "distprof.model.registry.ModelRegistry.adopt",
    "distprof.model.registry.ModelRegistry.place_records",
    "distprof.model.module_tree.ModuleTree.adopt",
    "distprof.model.registry.parameters_of",
    "distprof.model.registry.find_moe_layers",
    "distprof.recorder.recorded_rank.identify",
    "distprof.recorder.recorded_rank.header",
    "distprof.recorder.recorded_rank.open_shard",
    "distprof.recorder.step_clock.StepClock.forward_ended",
    "distprof.recorder.step_clock.StepClock.optimizer_stepped",
    "distprof.recorder.step_clock.StepClock.backward_began",
    "distprof.probes.counting.probe.CountingProbe.attach",
    "distprof.probes.counting.probe.CountingProbe.enter",
    "distprof.probes.counting.probe.CountingProbe.leave",
    "distprof.probes.counting.probe.CountingProbe.backward_began",
    "distprof.probes.counting.probe.CountingProbe.end",
    "distprof.probes.counting.probe.CountingProbe.read",
    "distprof.probes.counting.probe.ModuleStack.leave_root",
    "distprof.flops.counter.FlopMode._look_up",
    "distprof.flops.counter.FlopMode._count",
    "distprof.probes.timing.probe.TimedProbe.attach",
    "distprof.probes.timing.probe.TimedProbe.begin",
    "distprof.probes.timing.probe.TimedProbe.end",
    "distprof.probes.timing.probe.TimedProbe.read",
    "distprof.probes.optimizer_steps.OptimizerSteps.step_ended",
    "distprof.probes.timing.module_timer.ModuleTimer.enter",
    "distprof.probes.timing.module_timer.ModuleTimer.leave",
    "distprof.probes.timing.module_timer.ModuleTimer.backward_began",
    "distprof.probes.timing.module_timer.ModuleTimer.backward_ended",
    "distprof.probes.timing.module_timer.ModuleTimer.data_began",
    "distprof.probes.timing.module_timer.ModuleTimer.data_ended",
    "distprof.probes.timing.module_timer.ModuleTimer.remove_hooks",
    "distprof.probes.timing.phases.PhaseClock.enter",
    "distprof.probes.timing.phases.PhaseClock.leave",
    "distprof.probes.timing.phases.PhaseClock.finish",
    "distprof.probes.batch.BatchTally.forward",
    "distprof.shard.writer.ShardWriter.write",
    "distprof.shard.writer.to_payload",
    "distprof.probes.timing.module_times.ModuleTimeSums.fields_with",
    "distprof.flops.attribution.Attribution.enter",
    "distprof.flops.attribution.Attribution.leave",
    "distprof.flops.attribution.Attribution.owner",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_recorder_that_fails_leaves_the_job_alone(
    tmp_path: Path, expected: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], target: str
) -> None:
    monkeypatch.setattr(target, fails)
    assert run(tmp_path) == expected
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("distprof: ") and "RuntimeError" in lines[0]


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("distprof.probes.counting.probe.CountingProbe.enter", 0),
        ("distprof.probes.timing.module_timer.ModuleTimer.leave", 0),
        ("distprof.probes.timing.probe.TimedProbe.end", 0),
    ],
)
def test_the_failure_is_recorded_in_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], target: str, steps: int
) -> None:
    monkeypatch.setattr(target, fails)
    run(tmp_path)
    found = seen(tmp_path)
    error = found.one(Error)
    assert found.kinds[-1] == "error" and found.kinds[:5] == ["header", "plan", "tree", "parameters", "topology"]
    assert found.kinds.count("step") == steps
    assert error.message == "RuntimeError: ours" and "RuntimeError: ours" in error.traceback
    assert error.where in capfd.readouterr().err


class Stops(FakeClock):
    """A clock that fails after some reads."""

    def __init__(self, readings: int) -> None:
        super().__init__()
        self.left = readings

    def mono_ns(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the clock is broken")
        return super().mono_ns()


@pytest.mark.parametrize("readings", [0, 5, *range(11, 200, 3), 500])
def test_wherever_the_clock_fails_the_job_goes_on(
    tmp_path: Path, expected: list[Any], capfd: pytest.CaptureFixture[str], readings: int
) -> None:
    """Modules, autograd hooks, optimizer steps and the loader all read the clock."""
    clock = Stops(readings)
    assert run(tmp_path, clock=clock) == expected
    assert len(capfd.readouterr().err.splitlines()) == (clock.left < 0)


class FullDisk(FileSink):
    """A disk with room for some writes, of one record or more each."""

    left = 0

    def write(self, data: bytes) -> None:
        if type(self).left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        type(self).left -= 1
        super().write(data)


@pytest.mark.parametrize("room", range(8))
def test_whenever_the_disk_is_full_what_was_written_holds(
    tmp_path: Path, expected: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], room: int
) -> None:
    whole = record(tmp_path / "whole", job, **WINDOW)
    monkeypatch.setattr(FullDisk, "left", room)
    monkeypatch.setattr("distprof.recorder.shard_output.FileSink", FullDisk)
    assert run(tmp_path / "full") == expected
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"distprof: rank 0 {'stops recording' if room else 'is not recorded'}")
    assert "No space left" in line
    if room:
        found = seen(tmp_path / "full")
        assert len(found.kinds) >= room and found.kinds == whole.kinds[: len(found.kinds)] and not found.of(End)


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, expected: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, and the shard goes to a temporary folder."""
    (tmp_path / "run" / "shards").mkdir(parents=True)
    recording = recorder(tmp_path / "run", **WINDOW)
    (tmp_path / "run" / "shards").rmdir()
    (tmp_path / "run" / "shards").write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recording.arm()
    assert job() == expected
    recording.finish()
    (line,) = capfd.readouterr().err.splitlines()
    elsewhere = Path(line.rpartition(" ")[2])
    assert seen(elsewhere).one(End).reason == "window complete"


def test_a_forward_that_fails_in_the_script_is_not_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The script catches the exception and goes on; so does the recorder."""

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = nn.Linear(8, 8), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls % 2:
                raise ValueError("theirs")
            y: Tensor = self.inner(x)
            return y

    def script() -> None:
        model = Fails()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(5):
            with pytest.raises(ValueError, match="theirs"):
                model(torch.ones(4, 8))
            model(torch.ones(4, 8)).sum().backward()
            optimizer.step()

    found = record(tmp_path, script, **WINDOW)
    assert found.one(End).reason == "window complete"
    assert capfd.readouterr().err == ""


def test_a_backward_that_fails_in_the_script_is_not_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def script() -> None:
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(5):
            loss = model(torch.ones(4, 8)).sum()
            loss.backward()
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()
            optimizer.step()

    assert record(tmp_path, script, **WINDOW).one(End).reason == "window complete"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("where", ["arm", "__init__"])
def test_a_recorder_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, where: str
) -> None:
    from distprof.config.settings import Settings
    from distprof.inject import bootstrap

    monkeypatch.setattr(f"distprof.recorder.recorder.Recorder.{where}", fails)
    assert bootstrap.arm(Settings(run_dir=str(tmp_path))) is None
    assert bootstrap.recorder is None
    (line,) = capfd.readouterr().err.splitlines()
    assert "this process is not recorded, the job goes on: RuntimeError: ours" in line


@pytest.mark.parametrize(
    "target", ["distprof.recorder.instruments.OptimizerHook", "distprof.recorder.probe_switch.ProbeSwitch.watch_models"]
)
def test_a_recorder_that_is_half_armed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, target: str
) -> None:
    from distprof.config.settings import Settings
    from distprof.inject import bootstrap

    monkeypatch.setattr(target, fails)
    assert bootstrap.arm(Settings(run_dir=str(tmp_path))) is None
    assert len(capfd.readouterr().err.splitlines()) == 1
