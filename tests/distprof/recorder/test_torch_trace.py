"""Traces of torch.profiler in a running job: what is in them, and that a profiler of the script comes first."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import sgd
from support.recording import recorder
from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

from distprof.clock import Anchor, SystemClock
from distprof.merge.clock.offsets import HostClock, RankClock
from distprof.merge.trace.model import RankTrace, Slice
from distprof.merge.trace.torch_trace import with_torch_traces
from distprof.run_folder import RunFolder

autograd_profiler: Any = import_module("torch.autograd.profiler")
_PREPARE, _ENABLE = autograd_profiler._prepare_profiler, autograd_profiler._enable_profiler
_CLOCK = SystemClock()
At = dict[int, Callable[[], object]]


def train(folder: Path, at: At | None = None, traced: int = 2) -> list[float]:
    """Trains 12 iterations, of which those from the sixth on are traced; returns the losses.

    ``at[number]`` is called in iteration ``number``, between its forward and its backward.
    """
    recording = recorder(folder, _CLOCK, warmup=1)
    recording.arm()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer, losses = sgd(model), []
    try:
        for number in range(12):
            if number == 3:
                recording.requests.plan(6, 0, 0, traced=traced)
            loss = model(torch.ones(4, 2)).sum()
            (at or {}).get(number, lambda: None)()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    finally:
        recording.finish()
    assert autograd_profiler._prepare_profiler is _PREPARE and autograd_profiler._enable_profiler is _ENABLE
    return losses


def read(folder: Path) -> Any:
    (path,) = RunFolder(folder).traces_of(0)
    return json.loads(gzip.decompress(path.read_bytes()))


def iterations(trace: Any) -> list[str]:
    return [one["name"] for one in trace["traceEvents"] if one["name"].startswith("ProfilerStep#") and one["ph"] == "X"]


def test_a_trace_of_the_iterations_that_were_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moments: list[int] = []

    def mark() -> None:
        moments.append(_CLOCK.mono_ns())
        with torch.autograd.profiler.record_function("mark"):
            moments.append(_CLOCK.mono_ns())
            moments.append(_CLOCK.mono_ns())
        moments.append(_CLOCK.mono_ns())

    losses = train(tmp_path / "a", {7: mark})
    trace = read(tmp_path / "a")
    assert iterations(trace) == ["ProfilerStep#6", "ProfilerStep#7"]
    assert [one["name"] for one in trace["traceEvents"]].count("aten::linear") == 4
    assert (trace["distributedInfo"]["rank"], trace["distributedInfo"]["world_size"]) == (0, 1)
    assert "distprof:" not in capfd.readouterr().err
    assert losses == train(tmp_path / "b", traced=1)  # nothing depends on what is traced

    before, begun, ends, after = moments
    (mark_drawn,) = (one for one in drawn(tmp_path / "a") if one.name == "mark")
    error_ns = trace["distprof"]["clock"]["error_ns"] + 1000  # times in a trace may be whole microseconds
    assert before - error_ns <= mark_drawn.start_ns <= begun + error_ns
    assert ends - error_ns <= mark_drawn.end_ns <= after + error_ns


def drawn(folder: Path) -> list[Slice]:
    """Returns the slices of rank 0's traces, with times on its monotonic clock."""
    same = RankClock(Anchor(0, 0), HostClock(), None)
    trace = with_torch_traces(RankTrace(0, "rank 0", (), ()), RunFolder(folder).traces_of(0), same)
    assert trace.left_out == ()
    return [one for track in trace.tracks for one in track.slices]


def test_a_profiler_of_the_script_comes_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = profile(activities=[ProfilerActivity.CPU])
    train(tmp_path, {4: own.start, 9: own.stop})
    assert RunFolder(tmp_path).traces_of(0) == []
    assert any(event.key == "aten::linear" and event.count == 10 for event in own.key_averages())
    said = capfd.readouterr().err
    assert said.count("rank 0 has no trace of torch.profiler, the job goes on: the script") == 1


def test_ours_ends_when_the_script_starts_a_profiler(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = profile(activities=[ProfilerActivity.CPU])
    train(tmp_path, {7: own.start, 9: own.stop}, traced=3)
    assert iterations(read(tmp_path)) == ["ProfilerStep#6", "ProfilerStep#7"]
    assert any(event.key == "aten::linear" and event.count == 4 for event in own.key_averages())
    assert capfd.readouterr().err.count("rank 0 ends its trace of torch.profiler: the script starts") == 1


def test_a_profiler_that_was_prepared_comes_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = profile(activities=[ProfilerActivity.CPU], schedule=schedule(wait=1, warmup=6, active=1, repeat=1))
    train(tmp_path, {2: own.start, **dict.fromkeys(range(3, 12), own.step)})
    own.stop()
    assert RunFolder(tmp_path).traces_of(0) == []
    assert any(event.key == "aten::linear" and event.count == 2 for event in own.key_averages())
    assert "the script uses a profiler" in capfd.readouterr().err


def test_a_profiler_that_fails_ends_the_trace_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("torch.profiler.profiler._KinetoProfile.start", fail)
    assert len(train(tmp_path)) == 12
    assert RunFolder(tmp_path).traces_of(0) == []
    assert capfd.readouterr().err.count("the job goes on: out of memory") == 1
