"""``distprof log``: the newest run goes to a tracker, and one line says where."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.synthetic import write_run

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_run_goes_to_tensorboard(here: Cli, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = write_run(tmp_path / "run", dp=2, layers=1, steps=2)
    ended = here("log", run, "--to", "tensorboard", "--no-plots")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "" and "and 0 pictures are in tensorboard: tensorboard --logdir " in ended.stderr
    assert list((run / "report" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_tracker_must_be_named(here: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", dp=1, layers=1, steps=1)
    ended = here("log", run)
    assert ended.returncode == 2 and "--to" in ended.stderr
    assert "aim" in here("log", run, "--to", "aim").stderr
