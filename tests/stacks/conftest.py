"""Scenarios of real stacks, run under torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.scenarios import RunScenarios, Scenario

JOBS = Path(__file__).parent / "jobs"


@pytest.fixture(scope="session")
def run_scenarios(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> RunScenarios:
    """Runs all scenarios of a file of ``jobs/`` under torchrun."""

    def run(file: str, ranks: int) -> dict[str, Scenario]:
        out = tmp_path_factory.mktemp("runs")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        done = subprocess.run(
            [*torchrun, str(JOBS / "job.py"), str(JOBS / file), str(out)],
            env={**clean_env, "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        said = [line.removeprefix("scenario ") for line in done.stdout.splitlines() if line.startswith("scenario ")]
        assert done.returncode == 0, f"after {said}: {done.stderr[-4000:]}"
        assert "stops recording" not in done.stderr, done.stderr[-4000:]
        return {name: Scenario(out / name, whole) for name, whole in map(json.loads, said)}

    return run
