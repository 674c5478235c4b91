"""Tests of the owner of a folder, and of the users who could replace it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distprof.recorder.shard_output import open_shard
from distprof.records import Header
from distprof.run_folder import RunFolder, create
from distprof.safe_folders import NotOwn, is_out_of_reach, make_own, own_folder

ANOTHER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create(tmp_path, "x", shared=False)


def give_away(path: Path) -> None:
    os.chown(path, ANOTHER, ANOTHER)


def spoil(path: Path, how: str) -> None:
    """Makes the path, in one of several ways, no longer the user's own."""
    if how == "another user's":
        give_away(path)
    elif how == "a link":
        path.rename(path.with_name("aside"))
        path.symlink_to("aside")
    else:
        path.chmod(0o775 if how == "a group's" else 0o777)


WAYS = [pytest.param("another user's", marks=needs_root), "a link", "a group's", "everybody's"]
WHY = {
    "another user's": f"it belongs to another user (uid {ANOTHER})",
    "a link": "it is a symbolic link",
    "a group's": "other users may write into it (mode 775)",
    "everybody's": "other users may write into it (mode 777)",
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("which", ["", "shards"])
def test_rank_writes_only_into_own_folders(
    run: RunFolder, how: str, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run.path / which, how)
    with pytest.raises(NotOwn) as raised, own_folder(run.path, "shards"):
        pass
    assert raised.value.strerror == WHY[how]
    writer = open_shard(run, Header("r", 0, 1), lambda: False)
    assert writer is not None
    writer.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distprof: rank 0 cannot write to {run.shards} ({WHY[how]}): its shard goes to ")
    assert not RunFolder(run.path).shard_files()


@pytest.mark.parametrize("how", WAYS)
def test_only_own_folders_are_shared(run: RunFolder, how: str) -> None:
    make_own(run.path, "shards", shared=True)
    spoil(run.path / "shards", how)
    with pytest.raises(NotOwn):
        make_own(run.path, "shards", shared=True)


@pytest.mark.parametrize(
    ("mode", "safe"), [(0o755, True), (0o700, True), (0o1777, True), (0o1775, True), (0o777, False), (0o2775, False)]
)
def test_is_out_of_reach(tmp_path: Path, mode: int, safe: bool) -> None:
    above = tmp_path / "above"
    (above / "between" / "run").mkdir(parents=True)
    above.chmod(mode)
    assert is_out_of_reach(above / "between" / "run") == safe
    assert is_out_of_reach(above / "not there" / "yet") == safe
    assert is_out_of_reach(above)  # its own mode does not decide who can replace it


@needs_root
def test_owner_of_a_parent_folder_can_replace_it(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "run").mkdir(parents=True)
    give_away(above)
    assert not is_out_of_reach(above / "run")


def test_links_that_others_cannot_change(tmp_path: Path) -> None:
    (tmp_path / "safe" / "run").mkdir(parents=True)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for folder in ("safe", "open"):
        (tmp_path / folder / "link").symlink_to("../safe")
        (tmp_path / folder / "absolute").symlink_to(tmp_path / "safe")
    assert is_out_of_reach(tmp_path / "safe" / "link" / "run") and is_out_of_reach(
        tmp_path / "safe" / "absolute" / "run"
    )
    assert not is_out_of_reach(tmp_path / "open" / "link" / "run")
    assert not is_out_of_reach(tmp_path / "open" / "absolute" / "run")
    (tmp_path / "safe" / "loop").symlink_to("loop")
    assert not is_out_of_reach(tmp_path / "safe" / "loop" / "run")


@needs_root
def test_link_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "tmp" / "link").symlink_to(tmp_path / "safe")
    assert is_out_of_reach(tmp_path / "tmp" / "link" / "run")
    os.chown(tmp_path / "tmp" / "link", ANOTHER, ANOTHER, follow_symlinks=False)
    assert not is_out_of_reach(tmp_path / "tmp" / "link" / "run")
