"""``distprof merge --window``: a job that was recorded in several windows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loops import sgd, step
from support.recording import Ticking, recorder
from torch import nn

from distprof.recorder.recorder import Recorder

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two ranks, each recorded in two windows by a real recorder; the second is slower."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = nn.Sequential(Ticking(10, 20))

    def job(recording: Recorder) -> None:
        def slower() -> None:
            recording.requests.plan(start=8, counted=1, timed=3)
            model[0].forward_ms = 30  # type: ignore[assignment]

        model[0].forward_ms = 10  # type: ignore[assignment]
        optimizer = sgd(model)
        for number in range(16):
            if number == 6:
                slower()
            step(model, optimizer)

    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        recording = recorder(tmp_path / "run", warmup=1, count=True, timed=2)
        recording.arm()
        job(recording)
        recording.finish()
    return tmp_path / "run"


def test_a_job_of_two_ranks_is_merged_window_by_window(two_ranks: Path, here: Cli) -> None:
    def merged(*options: str) -> tuple[str, dict[str, Any]]:
        ended = here("merge", two_ranks, "--full", "--no-plots", *options)
        assert ended.returncode == 0, ended.stderr
        report = json.loads((two_ranks / "report" / "summary.json").read_text(encoding="utf-8"))
        return ended.stdout, report

    both = [
        {"number": 0, "first_iteration": 1, "last_iteration": 4, "ranks": 2, "iteration_ns": 33e6},
        {"number": 1, "first_iteration": 8, "last_iteration": 12, "ranks": 2, "iteration_ns": 53e6},
    ]
    text, last = merged()
    assert ", window 1 of 0-1\n" in text
    assert last["run"]["window"] == 1 and last["run"]["windows"] == both
    assert [row["step_iterations"] for row in last["ranks"]] == [[10, 11, 12]] * 2
    assert last["summary"]["wall_iteration_ns"]["median"] == 53e6
    assert not last["run"]["incomplete"]
    assert "window:   1 (iterations 8-12 of 2 ranks, median iteration 53 ms)" in text
    assert "also recorded: window 0 (iterations 1-4 of 2 ranks, median iteration 33 ms), shown by --window 0" in text
    text, first = merged("--window", "0")
    assert first["run"]["window"] == 0 and first["run"]["windows"] == both
    assert [row["step_iterations"] for row in first["ranks"]] == [[3, 4]] * 2
    assert first["summary"]["wall_iteration_ns"]["median"] == 33e6
    assert merged("--window", "1") == merged()


def test_a_window_that_is_not_there_is_one_sentence(two_ranks: Path, here: Cli) -> None:
    ended = here("merge", two_ranks, "--window", "2")
    assert ended.returncode == 2
    assert ended.stderr == "distprof: run test has no window 2: it has windows 0-1\n"
