"""Writing all files of a report, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from distprof.errors import DataError
from distprof.merge.export.files import write_files


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    write_files(tmp_path / "report", {"a.txt": b"old", "plots/b.png": b"b"})
    write_files(tmp_path / "report", {"a.txt": b"new", "plots/b.png": b"b"})
    assert everything(tmp_path / "report") == {"a.txt": b"new", "plots/b.png": b"b"}


def test_a_file_may_come_in_pieces(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.csv": iter([b"a,b\n", b"1,2\n"])})
    assert everything(tmp_path) == {"a.csv": b"a,b\n1,2\n"}


def test_obsolete_files_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("old.png", "users_own.png"):
        (tmp_path / "plots" / name).write_bytes(b"x")
    write_files(tmp_path, {"a.txt": b"a"}, obsolete=["plots/old.png", "plots/never_was.png"])
    assert everything(tmp_path) == {"a.txt": b"a", "plots/users_own.png": b"x"}


def test_no_folder_is_made_for_obsolete_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": b"a"}, obsolete=["plots/old.png"])
    assert not (tmp_path / "plots").exists()


def test_no_file_is_written_if_one_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"old")
    (tmp_path / "plots").write_bytes(b"a file where a folder has to be")
    before = everything(tmp_path)
    with pytest.raises(DataError, match="choose another folder with --out"):
        write_files(tmp_path, {"a.txt": b"new", "plots/b.png": b"b"}, obsolete=["plots"])
    assert everything(tmp_path) == before
