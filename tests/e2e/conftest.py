"""Fixtures of whole jobs, which run as a user runs them: ``distprof run``, then ``distprof merge``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.examples import EXAMPLES, Job
from support.jobs import Recorded, RunJob
from support.processes import python
from support.scripts import Workplace


@pytest.fixture(scope="session")
def record_job(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> RunJob:
    """Runs a script of ``examples/`` (or any path) under ``distprof run``, in a new folder, as run ``x``."""

    def run(script: str | Path, *options: str, nproc: int, ours: list[str] | None = None, **env: str) -> Recorded:
        folder = tmp_path_factory.mktemp("job")

        def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
            return python("-m", "distprof", *arguments, cwd=folder, env=clean_env)

        words = ("run", "--nproc", nproc, "--name", "x", *(ours or []), EXAMPLES / script, *options)
        done = Workplace(folder, clean_env).forking().start_distprof(*words, **env).wait(600)
        return Recorded(Job(done.out), done.err, done.code, folder / "runs" / "x", cli)

    return run
