"""Tests of the run folder, which is made before the job; the job runs without it too."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from distprof.config.settings import SETTINGS_FILE, Settings, read_settings
from distprof.errors import UsageError
from distprof.launcher import run_setup
from distprof.launcher.run_setup import Job, RunOptions, choose_options, environment, prepare
from distprof.run_folder import RunFolder

JOB = Job(("python", "train.py"), "train", world_size=8)


@pytest.fixture(autouse=True)
def injected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source" / "sitecustomize.py"
    source.parent.mkdir()
    source.write_text("marker = 1\n")
    monkeypatch.setattr(run_setup, "_INJECTED", source)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()


def made(options: RunOptions, job: Job = JOB) -> RunFolder:
    run = prepare(options, job)
    assert run is not None
    return run


def test_a_run_folder_holds_what_the_ranks_need(tmp_path: Path) -> None:
    run = made(RunOptions(tmp_path / "runs", settings=Settings(2, 3, False)))
    settings = read_settings(run.inject)
    manifest = run.read_manifest()
    assert manifest is not None
    assert (run.inject / "sitecustomize.py").read_text() == "marker = 1\n"
    assert (settings.warmup, settings.timed, settings.count, settings.run_dir) == (2, 3, False, str(run.path))
    assert settings.run_id == manifest.run_id
    assert (manifest.name, manifest.command, manifest.world_size) == (run.path.name, ("python", "train.py"), 8)
    files = {"sitecustomize.py", "distprof-settings.json"}
    assert {file.name for file in run.inject.iterdir()} == {*files, "daemon-by-ranks"}  # a launcher of another kind
    assert {file.name for file in made(RunOptions(tmp_path / "b", daemon=False)).inject.iterdir()} == files


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, two = (made(RunOptions(tmp_path, name="same")) for _ in range(2))
    assert (one.path.name, two.path.name) == ("same", "same-2")
    assert read_settings(one.inject).run_id != read_settings(two.inject).run_id


def test_the_nodes_of_one_job_meet_in_one_run(tmp_path: Path) -> None:
    job = Job((), "train", shared_name="job-7")
    one, two = (made(RunOptions(tmp_path), job) for _ in range(2))
    assert one.path == two.path
    launches = {read_settings(run.inject).launch for run in (one, two)}
    assert launches == {one.launch, two.launch} and len(launches) == 2  # what each node's ranks read is its own
    assert read_settings(one.inject).run_id == "job-7"


def test_temporary_folder_replaces_an_impossible_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    run = made(RunOptions(tmp_path / "file" / "runs"))
    line = capsys.readouterr().err
    assert run.path.is_relative_to(tmp_path / "tmp")
    assert line.startswith("distprof: cannot make a run folder in ") and line.count("\n") == 1
    assert f"recording in {run.path} instead" in line


def test_no_recording_without_any_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert prepare(RunOptions(tmp_path / "file" / "runs"), JOB) is None
    assert "the job runs without a recording" in capsys.readouterr().err


def test_a_path_that_pythonpath_cannot_carry_is_not_used(tmp_path: Path) -> None:
    assert ":" not in str(made(RunOptions(tmp_path / "a:b")).path)


def test_invalid_settings_are_refused_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="warmup is -1"):
        choose_options({"out": str(tmp_path / "runs"), "warmup": -1}, {})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("inherited", [{}, {"PYTHONPATH": ""}, {"PYTHONPATH": "/a:/b", "HOME": "/home"}])
def test_only_two_variables_are_added(
    inherited: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = environment(RunFolder(Path("runs/x")), inherited)
    paths = variables["PYTHONPATH"].split(":")
    assert paths == [str(tmp_path / "runs/x/inject"), *(["/a", "/b"] if inherited.get("PYTHONPATH") else [])]
    assert variables == {"PYTHONPATH": variables["PYTHONPATH"], "DISTPROF_RUN": str(tmp_path / "runs/x")}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_nobody_else_can_write_into_a_run_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        run = made(RunOptions(tmp_path / "runs"))
    finally:
        os.umask(before)
    found = [run.path, *run.path.rglob("*")]
    assert {run.inject / "sitecustomize.py", run.inject / SETTINGS_FILE, run.manifest, run.shards} <= {*found}
    assert all(path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) & ~umask for path in found)


@pytest.mark.parametrize("mode", [0o777, 0o2775])
def test_code_path_if_others_could_replace_the_run(tmp_path: Path, mode: int) -> None:
    """In a group's folder records are written, but no code is loaded from it."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(mode)
    run = made(RunOptions(tmp_path / "group" / "runs", daemon=False))
    installed = run_setup._INJECTED.parent
    assert [file.name for file in run.inject.iterdir()] == [SETTINGS_FILE]
    assert environment(run, {})["PYTHONPATH"] == f"{installed}:{installed}/of{run.inject}"
    (tmp_path / "group").chmod(mode | stat.S_ISVTX)
    assert environment(run, {})["PYTHONPATH"] == str(run.inject)


def test_a_run_folder_that_was_made_by_another_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of such a folder can be guessed, because the nodes of a job agree on it."""
    (tmp_path / "runs" / "job-7" / "inject").mkdir(parents=True)
    (tmp_path / "runs" / "job-7").chmod(0o777)
    run = made(RunOptions(tmp_path / "runs"), Job((), "train", shared_name="job-7"))
    assert run.path.is_relative_to(tmp_path / "tmp")
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "job-7 is not this user's own folder, other users may write into it" in line
    assert list((tmp_path / "runs" / "job-7").rglob("*")) == [tmp_path / "runs" / "job-7" / "inject"]


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    manifest = json.loads(made(RunOptions(tmp_path)).manifest.read_text())
    assert set(manifest) == {"run_id", "name", "command", "world_size", "started_wall_ns", "shown"}


def test_precedence_of_sources(
    tmp_path: Path,
) -> None:
    file = tmp_path / "x.toml"
    file.write_text('warmup = 1\ntimed = 1\ncount = false\nname = "of-file"\nout = "there"\ndepth = 2\n')
    options = choose_options(
        {"config": file, "warmup": 3, "count": True}, {"DISTPROF_WARMUP": "2", "DISTPROF_TIMED": "2"}
    )
    assert options.settings == Settings(warmup=3, timed=2, count=True)
    assert (options.out, options.name, options.merge) == (Path("there"), "of-file", False)
    assert (options.shown, options.config) == ({"depth": 2}, file)
    assert choose_options({"config": None, "name": None}, {}).settings == Settings()


def test_report_options_are_kept_but_no_output_paths(tmp_path: Path) -> None:
    environment = {"DISTPROF_DEPTH": "-1", "DISTPROF_OUTPUT_FILE": "/etc/passwd", "DISTPROF_OUT": str(tmp_path)}
    manifest = made(choose_options({}, environment)).read_manifest()
    assert manifest is not None
    assert manifest.shown == {"depth": -1}
