"""The examples are scripts, not a package: tests import them from their folder, and run them as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import EXAMPLES, Job, Run

sys.path.insert(0, str(EXAMPLES))


@pytest.fixture
def run(tmp_path: Path, clean_env: dict[str, str]) -> Run:
    """Runs a script on ``ranks`` ranks under torchrun (0: under plain python); it must end with exit code 0."""

    def run_job(script: str | Path, *options: str, ranks: int = 0) -> Job:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
        job = subprocess.run(
            [sys.executable, *launcher, str(EXAMPLES / script), *options],
            cwd=tmp_path,
            env={**clean_env, "PYTHONPATH": str(EXAMPLES)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert job.returncode == 0, job.stdout + job.stderr
        return Job(job.stdout)

    return run_job
