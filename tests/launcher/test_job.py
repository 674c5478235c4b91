"""Tests of a whole job, which is a function here: nothing after it changes its exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from support import synthetic

from distprof.launcher import job
from distprof.launcher.job import record_job
from distprof.launcher.run_setup import Job, RunOptions, choose_options
from distprof.run_folder import RunFolder

JOB = Job(("train.py",), "train", world_size=2)
RECORDED = "distprof: 2 of 2 ranks recorded in runs/x"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DISTPROF_")]:
        monkeypatch.delenv(name)


def recorded(variables: Mapping[str, str]) -> int:
    """Returns a job whose two ranks record three steps each, and which ends with exit code 3."""
    run = RunFolder(Path(variables["DISTPROF_RUN"]))
    run.manifest.unlink()  # of another run than what is made up here
    for rank in range(2):
        synthetic.write_shard(run.shard_path(rank, 0), synthetic.rank_records(synthetic.Job(dp=2), rank))
    return 3


def test_the_exit_code_is_the_jobs_and_the_next_step_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert record_job(RunOptions(name="x"), JOB, recorded) == 3
    assert capsys.readouterr().err == f"{RECORDED}  ->  distprof merge runs/x\n"


def test_the_last_line_is_said_when_the_job_raises(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(variables: Mapping[str, str]) -> NoReturn:
        recorded(variables)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_job(RunOptions(name="x"), JOB, breaks)
    assert capsys.readouterr().err.startswith(RECORDED)


def test_a_job_merges_at_its_end_when_asked_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the user has a numpy.py')")
    assert record_job(RunOptions(name="x", merge=True), JOB, recorded) == 3
    shown = capfd.readouterr()
    assert shown.err.splitlines()[0] == RECORDED, "without a next step to type"
    assert "ranks recorded" in shown.out
    assert (tmp_path / "runs" / "x" / "report" / "summary.json").exists()


def test_a_merge_that_fails_is_said_and_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def in_the_way(variables: Mapping[str, str]) -> int:
        RunFolder(Path(variables["DISTPROF_RUN"])).report.touch()
        return recorded(variables)

    assert record_job(RunOptions(name="x", merge=True), JOB, in_the_way) == 3
    last = "distprof: merging ended with exit code 1; the shards are safe: distprof merge runs/x"
    assert capfd.readouterr().err.splitlines()[-1] == last


def test_a_fault_of_ours_at_the_end_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty(*_: object) -> NoReturn:
        raise RuntimeError("a fault")

    monkeypatch.setattr(job, "read_rank_summaries", faulty)
    assert record_job(RunOptions(name="x"), JOB, recorded) == 3
    assert capsys.readouterr().err == "distprof: cannot say what was recorded in runs/x: RuntimeError('a fault')\n"


def test_final_merge_gets_the_configuration(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text('output-file = "out.txt"\nplots = false\n')
    assert record_job(RunOptions(name="x", merge=True, config=Path("x.toml")), JOB, recorded) == 3
    assert capfd.readouterr().out == ""
    assert "Profile Summary" in (tmp_path / "out.txt").read_text()
    assert not (tmp_path / "runs" / "x" / "report" / "plots").exists()


@pytest.mark.parametrize("speaks", [True, False])
def test_a_job_that_shall_not_be_recorded_runs_all_the_same(
    speaks: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions(off="'enabled' in x.toml", remarks=("first",))
    assert record_job(options, replace(JOB, speaks=speaks), len) == 0
    assert list(tmp_path.iterdir()) == []
    said = "distprof: first\ndistprof: the job is not recorded: 'enabled' in x.toml says no\n"
    assert capsys.readouterr().err == (said if speaks else "")


def test_environment_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "prepare", lambda *_: None)
    assert record_job(RunOptions(), JOB, len) == 0


def test_misspelt_variables_are_named_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DISTPROF_PLOT", "0")
    monkeypatch.setenv("DISTPROF_PLOTS", "0")
    assert record_job(choose_options({"name": "x", "merge": True}), JOB, recorded) == 3
    lines = capfd.readouterr().err.splitlines()
    named = [line for line in lines if "unknown variable" in line]
    assert named == [
        "distprof: the environment has an unknown variable 'DISTPROF_PLOT': did you mean 'DISTPROF_PLOTS'?"
    ]
    assert lines[1:] == [RECORDED, "distprof: report in runs/x/report"], "the job was recorded and merged all the same"
