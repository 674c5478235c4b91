"""Tests of the run folder: safe names, folders that do not collide, and a manifest that is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distprof.errors import DataError, UsageError
from distprof.run_folder import Manifest, RunFolder, create, job_name, safe_name

MANIFEST = Manifest("id", "x", ("python", "train.py"), 8, 1_700_000_000_000_000_000)


def test_a_new_run_never_enters_an_old_one(tmp_path: Path) -> None:
    names = [create(tmp_path / "runs", "x", shared=False).path.name for _ in range(3)]
    assert names == ["x", "x-2", "x-3"]


def test_processes_of_one_job_share_a_run(tmp_path: Path) -> None:
    assert create(tmp_path, "x", shared=True) == create(tmp_path, "x", shared=True)


def test_a_folder_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot make a run folder in .*file: Not a directory \(choose another"):
        create(tmp_path / "file", "x", shared=False)


def test_shards_are_found_in_both_places(tmp_path: Path) -> None:
    run = create(tmp_path, "x", shared=False)
    copied = tmp_path / "copied"
    copied.mkdir()
    for rank in (10, 9):
        run.shard_path(rank, 0).touch()
        (copied / run.shard_path(rank, 1).name).touch()
    assert [path.name for path in run.shard_files()] == ["rank00009.g0.msgpack", "rank00010.g0.msgpack"]
    assert [path.name for path in RunFolder(copied).shard_files()] == ["rank00009.g1.msgpack", "rank00010.g1.msgpack"]


def test_manifest_round_trip_leaves_no_other_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read_manifest() is None
    run.write_manifest(MANIFEST)
    run.write_manifest(MANIFEST)
    assert run.read_manifest() == MANIFEST
    assert list(tmp_path.iterdir()) == [run.manifest]


def test_a_manifest_of_another_version_is_read_for_what_is_known(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_manifest(MANIFEST)
    run.manifest.write_text(json.dumps({**json.loads(run.manifest.read_text()), "colour": "blue"}))
    assert run.read_manifest() == MANIFEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        "\x00",
        '{"run_id": 1, "name": "x", "command": [], "world_size": 1, "started_wall_ns": 1}',
    ],
    ids=["empty", "list", "no keys", "deep", "binary", "type"],
)
def test_a_broken_manifest_is_one_sentence(text: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).manifest.write_text(text)
    with pytest.raises(DataError, match="is no manifest of a run"):
        RunFolder(tmp_path).read_manifest()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train", "train"),
        ("../../etc/x y", "etc-x-y"),
        ("..", "run"),
        ("-rf", "rf"),
        ("naïve:1", "na-ve-1"),
        ("a" * 300, "a" * 100),
    ],
)
def test_a_name_is_one_harmless_file_name(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_a_job_is_named_by_its_rendezvous_then_by_slurm() -> None:
    assert job_name("7", {"SLURM_JOB_ID": "9"}) == "job-7"
    assert job_name(None, {"SLURM_JOB_ID": "9"}) == "job-9"
    assert job_name(None, {}) is None
