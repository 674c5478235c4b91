"""Tests of ``distprof run`` compared with torchrun: the environment of ranks, the exit code, the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripts import Workplace

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

TELL = """
import json, os, sys
seen = dict(argv=sys.argv, path=sys.path[0], environment=dict(os.environ))
with open(f"rank{os.environ['RANK']}.json", "w") as file:
    json.dump(seen, file)
sys.stdout.write(f"stdout of {os.environ['RANK']}\\n")
"""
#: torchrun gives each job and worker its own values of these.
EVERY_JOB_ITS_OWN = ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_ERROR_FILE", "_")


def told(folder: Path, rank: int = 0) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((folder / f"rank{rank}.json").read_text())
    return seen


@pytest.fixture
def place(tmp_path: Path, clean_env: dict[str, str]) -> Workplace:
    """``tmp_path``, where launchers and ranks are forks: whole jobs that are really started are in ``tests/e2e``."""
    return Workplace(tmp_path, clean_env).forking()


def test_environment_of_ranks_is_torchruns_plus_three(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TELL)
    place.start_torchrun("--nproc-per-node", 2, "train.py", PYTHONPATH="/mine").wait()
    plain = told(tmp_path, 1)
    theirs = ["--name", "x", "--t", "1", "--", "--help"]
    ended = place.distprof("run", "--nproc", 2, "--name", "seen", "train.py", *theirs, PYTHONPATH="/mine")
    seen = told(tmp_path, 1)
    assert (ended.code, sorted(ended.out.splitlines())) == (0, ["stdout of 0", "stdout of 1"])
    assert seen["argv"] == ["train.py", *theirs]
    assert seen["path"] == plain["path"]
    run = tmp_path / "runs" / "seen"
    for own in EVERY_JOB_ITS_OWN:
        plain["environment"].pop(own, None), seen["environment"].pop(own, None)
    assert seen["environment"] == {
        **plain["environment"],
        "PYTHONPATH": f"{run / 'inject'}:/mine",
        "DISTPROF_RUN": str(run),
        "TORCH_FR_BUFFER_SIZE": "5500",  # 500 collectives for each of 11 timed steps
    }


def test_a_failing_job_ends_as_under_torchrun(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("import os, sys; print('ran', os.environ['RANK']); sys.exit(3)")
    plain, ours = place.start_torchrun("fails.py").wait(), place.distprof("run", "fails.py")
    assert (ours.code, ours.out) == (plain.code, plain.out) == (1, "ran 0\n")
    *torchruns, last = ours.err.splitlines()
    assert last.startswith("distprof: 0 of 1 ranks recorded in runs/fails-") and "rank 0 called no module" in last
    assert torchruns[-1] == plain.err.splitlines()[-1], "torchrun's own report of the failure comes before"


@pytest.mark.parametrize("how", [["-m", "package.train"], ["--no-python", "package/train.sh"]], ids=lambda how: how[0])
def test_modules_and_programs_run_too(how: list[str], place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("import sys; print('ran', *sys.argv[1:])")
    (tmp_path / "package" / "train.sh").write_text("#!/bin/sh\necho ran $*\n")
    (tmp_path / "package" / "train.sh").chmod(0o755)
    ended = place.distprof("run", *how, "-m", "--name", PYTHONPATH=".")
    assert (ended.code, ended.out) == (0, "ran -m --name\n")


def test_two_jobs_on_one_machine_do_not_collide(place: Workplace, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    script = tmp_path / "meet.py"
    script.write_text(
        "import pathlib, time\n"
        "pathlib.Path('here').touch()\n"
        "while not all((pathlib.Path('..') / job / 'here').exists() for job in 'ab'): time.sleep(0.05)\n"
    )
    jobs = []
    for folder in folders:
        folder.mkdir()
        words = ("run", "--out", "../runs", "--name", "one", script)
        jobs.append(replace(place, folder=folder).start_distprof(*words))
    assert [job.wait().code for job in jobs] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one", "one-2"]


def test_without_torch_one_sentence_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "none" / "torch").mkdir(parents=True)
    (tmp_path / "none" / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    ended = cli("run", "train.py", env={"PYTHONPATH": str(tmp_path / "none")})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "distprof: 'distprof run' needs torch, which this Python cannot import: no torch here\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("how", [["run"], ["exec", "--", "python"]], ids=["run", "exec"])
def test_unknown_key_stops_before_the_start(how: list[str], place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TELL)
    (tmp_path / "pyproject.toml").write_text("[tool.distprof]\ntime = 3\n")
    ended = place.distprof(*how, "train.py")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "distprof: [tool.distprof] of pyproject.toml has an unknown key 'time': did you mean 'timed'?\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("how", [["run"], ["exec", "--", sys.executable]], ids=["run", "exec"])
def test_a_job_runs_unrecorded_where_the_environment_says_so(how: list[str], place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os; print('DISTPROF_RUN' in os.environ)")
    ended = place.distprof(*how, "train.py", DISTPROF_ENABLED="0")
    assert (ended.code, ended.out) == (0, "False\n")
    assert ended.err == "distprof: the job is not recorded: DISTPROF_ENABLED says no\n"
    assert not (tmp_path / "runs").exists()


def test_help_shows_our_options_before_torchruns(place: Workplace) -> None:
    ended = place.distprof("run", "--help")
    places = [ended.out.index(word) for word in ("distprof run --nproc 8", "--no-count", "--nnodes", "--tee")]
    assert (ended.code, places) == (0, sorted(places))
    assert "==SUPPRESS==" not in ended.out
