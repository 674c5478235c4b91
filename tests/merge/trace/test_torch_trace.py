"""Traces of torch.profiler on the clock of the other tracks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from distprof.clock import Anchor
from distprof.merge.clock.offsets import HostClock, RankClock
from distprof.merge.trace.model import RankTrace, Slice
from distprof.merge.trace.torch_trace import with_torch_traces

#: The rank's monotonic clock began 5 s after 1970.
CLOCK = RankClock(Anchor(5_000_000_000, 0), HostClock(), None)
ABOUT = {"clock": {"range": "distprof clock 1", "mono_ns": 2_000_000, "error_ns": 10}}


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: object = 7, **others: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 40, "tid": tid, "ts": ts, "dur": dur, **others}


#: The clock was read at 100 us of the trace.
MARK = event("distprof clock 1", 100.0, 2.0, "user_annotation")


def written(folder: Path, events: list[Any], about: Any = ABOUT) -> Path:
    path = folder / "rank0.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"distprof": about, "traceEvents": events}).encode()))
    return path


def test_events_stand_on_the_clock_of_the_records(tmp_path: Path) -> None:
    events = [
        event("inner", 110.5, 4, tid="worker"),
        MARK,
        event("outer", 110.0, 5.0, tid="worker"),
        event("crosses", 112, 100, tid="worker"),
        event("matmul", 300, 1, "kernel", 20),
        event("around", 0, 500, "Trace"),
        {"ph": "M", "name": "thread_name", "pid": 40, "tid": 7},
        event("no time", float("nan"), 1),
        event("true", True, 1),
        event("text", 1, 1) | {"dur": "3"},
        "nothing",
    ]  # fmt: skip
    trace = with_torch_traces(RankTrace(0, "rank 0", (), ()), [written(tmp_path, events)], CLOCK)
    assert trace.left_out == ()
    thread, stream = sorted(trace.tracks, key=lambda track: track.name, reverse=True)
    base = 5_002_000_000 - 100_000
    assert thread.name == "torch.profiler: thread 1" and stream.name == "torch.profiler: GPU 40, stream 20"
    nested, crossing = thread.lanes
    assert nested == [Slice("outer", base + 110_000, base + 115_000), Slice("inner", base + 110_500, base + 114_500)]
    assert crossing == [Slice("crosses", base + 112_000, base + 212_000)]
    assert [one.name for one in stream.slices] == ["matmul"]


@pytest.mark.parametrize(
    ("events", "about"),
    [
        ([], ABOUT),
        ([MARK], {}),
        ([MARK], {"clock": {"range": "distprof clock 1", "mono_ns": "2"}}),
        ([MARK], {"clock": 3}),
        ("events", ABOUT),
        (3, ABOUT),
    ],
)
def test_a_trace_that_does_not_fit_is_left_out(tmp_path: Path, events: Any, about: Any) -> None:
    path = written(tmp_path, events, about)
    trace = with_torch_traces(RankTrace(0, "rank 0", (), ()), [path], CLOCK)
    assert trace.tracks == () and len(trace.left_out) == 1 and str(path) in trace.left_out[0]


def test_a_damaged_trace_is_left_out(tmp_path: Path) -> None:
    whole = written(tmp_path, [MARK]).read_bytes()
    for damaged in (whole[:-10], b"no gzip", gzip.compress(b"[1, 2]"), gzip.compress(b"[" * 100_000), b""):
        (tmp_path / "rank0.json.gz").write_bytes(damaged)
        trace = with_torch_traces(RankTrace(0, "rank 0", (), ()), [tmp_path / "rank0.json.gz"], CLOCK)
        assert trace.tracks == () and len(trace.left_out) == 1
