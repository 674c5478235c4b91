"""Tests of reading files of unknown origin: bounded, and without waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distprof.safe_files import NotRegular, TooLarge, read_beginning, read_regular
from distprof.shard.frames import MAX_SHARD_BYTES
from distprof.shard.reader import NotAShard, read_header, read_shard


def test_regular_file_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    assert read_beginning(file, 3) == b"123"
    with pytest.raises(TooLarge, match="it has 5 bytes, and no such file has more than 4"):
        read_regular(file, 4)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_other_files_are_not_opened(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "it")
    for read in (read_regular, read_beginning):
        with pytest.raises(NotRegular):
            read(tmp_path / "it", 10)


def test_huge_sparse_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rank00000.g0.msgpack"
    file.touch()
    os.truncate(file, 60 << 30)
    with pytest.raises(NotAShard, match=f"64,424,509,440 bytes, and no such file has more than {MAX_SHARD_BYTES:,}"):
        read_shard(file)
    with pytest.raises(NotAShard, match="does not begin with a header"):
        read_header(file)
