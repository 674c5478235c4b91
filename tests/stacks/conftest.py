"""Runs scenarios of real stacks with torchrun's agent, and writes the page about them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.forking.server import forking_python
from support.scenarios import RunScenarios, Scenario
from support.stacks_page import write

JOBS = Path(__file__).parent / "jobs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-page", action="store_true", help="write the table of docs/STACKS.md, if these tests pass")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # one, wherever the tests ran
    if reporter and session.config.getoption("--write-page", default=False):
        bad = {_test(report) for outcome in ("failed", "error", "skipped") for report in reporter.getreports(outcome)}
        why_not = write({_test(report) for report in reporter.getreports("passed")} - bad)
        if why_not:
            reporter.write_line(f"\n{why_not}", red=True)
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _test(report: pytest.TestReport) -> str:
    """Returns FILE::NAME of a test, without its parameters."""
    return Path(report.nodeid.partition("[")[0]).name


@pytest.fixture(scope="session")
def run_scenarios(tmp_path_factory: pytest.TempPathFactory, clean_env: dict[str, str]) -> RunScenarios:
    """Runs all scenarios of a file of ``jobs/`` in so many ranks; ``more`` are variables of their environment."""

    def run(file: str, ranks: int, **more: str) -> dict[str, Scenario]:
        out = tmp_path_factory.mktemp("runs")
        done = subprocess.run(
            [forking_python(clean_env), str(JOBS / "job.py"), str(JOBS / file), str(out), str(ranks)],
            env={**clean_env, "DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **more},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        said = [line.removeprefix("scenario ") for line in done.stdout.splitlines() if line.startswith("scenario ")]
        assert done.returncode == 0, f"after {said}: {done.stderr[-4000:]}"
        assert "stops recording" not in done.stderr, done.stderr[-4000:]
        return {name: Scenario(out / name, *parts) for name, *parts in map(json.loads, said)}

    return run
