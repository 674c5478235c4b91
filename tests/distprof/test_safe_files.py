"""Files from elsewhere: bounded, and never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distprof.safe_files import NotRegular, TooLarge, read_beginning, read_regular
from distprof.shard.frames import MAX_SHARD_BYTES
from distprof.shard.reader import NotAShard, read_header, read_shard


def test_a_regular_file_is_read_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    assert read_beginning(file, 3) == b"123"
    with pytest.raises(TooLarge, match="it has 5 bytes, and no such file has more than 4"):
        read_regular(file, 4)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_nothing_else_is_opened(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "it")
    for read in (read_regular, read_beginning):
        with pytest.raises(NotRegular):
            read(tmp_path / "it", 10)


def test_a_shard_that_is_mostly_holes_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "rank00000.g0.msgpack"
    file.touch()
    os.truncate(file, 60 << 30)
    with pytest.raises(NotAShard, match=f"64,424,509,440 bytes, and no such file has more than {MAX_SHARD_BYTES:,}"):
        read_shard(file)
    with pytest.raises(NotAShard, match="does not begin with a header"):
        read_header(file)
