"""Whole jobs, as a user runs them: ``distprof run``, then ``distprof merge``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import EXAMPLES, Job
from support.jobs import Recorded, RunJob
from support.scripts import NewWorkplace, Workplace


@pytest.fixture(scope="session")
def record_job(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> RunJob:
    """Runs a script of ``examples/`` (or any path) under ``distprof run``, in a folder of its own, as run ``x``."""

    def run(script: str | Path, *options: str, nproc: int, ours: list[str] | None = None) -> Recorded:
        folder = tmp_path_factory.mktemp("job")

        def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "distprof", *arguments],
                cwd=folder,
                env=clean_env,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )

        done = cli("run", "--nproc", str(nproc), "--name", "x", *(ours or []), str(EXAMPLES / script), *options)
        return Recorded(Job(done.stdout), done.stderr, done.returncode, folder / "runs" / "x", cli)

    return run


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> NewWorkplace:
    """Makes folders for scripts of a test's own."""
    return lambda: Workplace(tmp_path_factory.mktemp("work"), clean_env)
