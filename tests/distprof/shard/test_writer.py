"""Tests of writing shards: one write for the records of one moment, and a shard after a full disk or a dead writer."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.records import written
from support.shards import DATA, END, HEADER, PLAN, RECORDS, TREE, edges

from distprof.records import (
    Error,
    ExpertLoad,
    Header,
)
from distprof.shard.codec import RecordError
from distprof.shard.frames import MAX_BODY_BYTES
from distprof.shard.reader import NotAShard, parse_shard, read_shard
from distprof.shard.writer import DescriptorLost, FileSink, MemorySink, ShardWriter


def test_a_shard_has_one_header_which_comes_first() -> None:
    writer = ShardWriter(MemorySink())
    with pytest.raises(ValueError, match="one header, which comes first: this is 'plan'"):
        writer.write(PLAN)
    writer.write(HEADER)
    with pytest.raises(ValueError, match="one header"):
        writer.write(HEADER)


def test_text_that_is_no_unicode_is_escaped() -> None:
    name = os.fsdecode(b"caf\xe9.py")
    assert parse_shard(written([Header("r", 0, 1, script=name)])).header.script == "caf\\udce9.py"


def test_what_no_reader_would_take_is_not_written() -> None:
    writer = ShardWriter(sink := MemorySink())
    writer.write(HEADER)
    with pytest.raises(ValueError, match="too long for a shard"):
        writer.write(Error("x", "y" * MAX_BODY_BYTES))
    with pytest.raises(RecordError):
        writer.write(ExpertLoad(1, np.array([0.5])))
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.report.damaged) == ([HEADER, END], False)


def test_a_file_is_created_and_never_reopened(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    writer = ShardWriter(FileSink(path))
    for record in RECORDS:
        writer.write(record)
    writer.close()
    writer.close()
    assert path.read_bytes() == DATA
    assert read_shard(path).source == str(path)
    with pytest.raises(FileExistsError):
        FileSink(path)


def test_each_record_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: lengths.append(len(data)) or write(fd, data))  # type: ignore[func-returns-value]
    writer = ShardWriter(FileSink(tmp_path / "shard"))
    for record in RECORDS:
        writer.write(record)
    assert lengths == np.diff(edges(DATA)).tolist()


class NarrowSink(MemorySink):
    """A sink without space for some writes."""

    def __init__(self, refused: Sequence[int]) -> None:
        super().__init__()
        self._refused = refused
        self._writes = 0

    def write(self, data: bytes) -> None:
        self._writes += 1
        if self._writes - 1 in self._refused:
            raise OSError(28, "No space left on device")
        super().write(data)


def test_a_record_that_found_no_room_is_a_gap() -> None:
    writer = ShardWriter(sink := NarrowSink([2]))
    for record in RECORDS[:2]:
        writer.write(record)
    with pytest.raises(OSError, match="No space"):
        writer.write(TREE)
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.sequences) == ([HEADER, PLAN, END], [0, 1, 3])
    assert shard.report.sequence_gaps == 1


def test_a_header_that_found_no_room_may_be_written_again() -> None:
    writer = ShardWriter(sink := NarrowSink([0]))
    with pytest.raises(OSError, match="No space"):
        writer.write(HEADER)
    writer.write(HEADER)
    writer.write(END)
    shard = parse_shard(bytes(sink.data))
    assert (shard.records, shard.report.damaged) == ([HEADER, END], False)


KILLED = """
import resource, sys
from distprof.records import Error, Header
from distprof.shard.writer import FileSink, ShardWriter
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, 1 << 26))  # the test cannot fill the disk
writer = ShardWriter(FileSink(Path("shard")))
writer.write(Header("the-run", 0, 1))
for number in range(50_000):
    writer.write(Error(str(number), "x" * 500))
    if number == 20:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_all_but_its_last_record(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"going\n"
            while_it_runs = read_shard(tmp_path / "shard")
        finally:
            process.kill()
    shard = read_shard(tmp_path / "shard")
    assert 20 < len(while_it_runs.records) <= len(shard.records)
    assert [record.where for record in shard.records[1:] if isinstance(record, Error)] == [
        str(number) for number in range(len(shard.records) - 1)
    ]
    assert shard.report.unread_why in ("", "the last record is torn")
    assert (shard.report.sequence_gaps, shard.report.malformed) == (0, [])


def test_a_full_disk_leaves_no_piece_of_a_record(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        try:
            writer = ShardWriter(FileSink(tmp_path / "shard"))
            writer.write(HEADER)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                writer.write(Error("too", "long" * 1000))
            except OSError:
                writer.write(END)
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shard = read_shard(tmp_path / "shard")
    assert (shard.records, shard.report.sequence_gaps, shard.report.unread_bytes) == ([HEADER, END], 1, 0)


@pytest.mark.parametrize("theirs", ["another file", "nothing", "a new file in its place"])
def test_a_descriptor_that_the_script_closed_is_never_written_to(tmp_path: Path, theirs: str) -> None:
    """The next file that the script opens gets its number, and may even have the shard's inode."""
    sink = FileSink(tmp_path / "shard")
    writer = ShardWriter(sink)
    writer.write(HEADER)
    writer.write(PLAN)
    number = sink._fd
    os.close(number)
    if theirs == "a new file in its place":
        (tmp_path / "shard").unlink()
    if theirs != "nothing":
        while os.open(tmp_path / "own", os.O_WRONLY | os.O_CREAT | os.O_APPEND) < number:
            pass
        os.write(number, b"my checkpoint")
    for _ in range(2):
        with pytest.raises(DescriptorLost, match="the script has closed the descriptor of its shard"):
            writer.write(END)
    writer.close()
    if theirs != "nothing":
        assert (tmp_path / "own").read_bytes() == b"my checkpoint"
        os.close(number)  # it is still open: nobody else has closed it
    if theirs == "another file":
        assert read_shard(tmp_path / "shard").records == [HEADER, PLAN]


LOW = """
import os, sys
from pathlib import Path
from distprof.records import Header
from distprof.shard.writer import FileSink, ShardWriter
for fd in map(int, sys.argv[1:]):
    os.close(fd)
sink = FileSink(Path("shard"))
writer = ShardWriter(sink)
writer.write(Header("the-run", 0, 1))
for fd in range(3):
    try:
        os.write(fd, b"what the job says")
    except OSError:
        pass
left = [fd for fd in range(3) if os.path.exists(f"/proc/self/fd/{fd}")]
with open("said", "w") as file:
    file.write(f"{sink._fd > 2} {left}")
"""


@pytest.mark.parametrize("closed", [[], [2], [0, 2], [0, 1, 2]])
def test_no_shard_stands_where_a_standard_stream_was_closed(tmp_path: Path, closed: list[int]) -> None:
    subprocess.run([sys.executable, "-c", LOW, *map(str, closed)], cwd=tmp_path, check=True, capture_output=True)
    shard = read_shard(tmp_path / "shard")
    assert (len(shard.records), shard.report.damaged) == (1, False)
    assert (tmp_path / "said").read_text() == f"True {[fd for fd in range(3) if fd not in closed]}"


class Late(Exception):
    pass


def test_interrupted_write_leaves_no_partial_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk accepts a part of the record, and then a signal handler raises."""
    writer = ShardWriter(FileSink(tmp_path / "shard"))
    writer.write(HEADER)
    write = os.write

    def interrupted(fd: int, data: bytes) -> int:
        write(fd, data[:10])
        raise Late

    with monkeypatch.context() as patch, pytest.raises(Late):
        patch.setattr(os, "write", interrupted)
        writer.write(PLAN)
    writer.write(END)
    shard = read_shard(tmp_path / "shard")
    assert (shard.records, shard.report.sequence_gaps, shard.report.unread_bytes) == ([HEADER, END], 1, 0)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAShard, match=r"pipe is no distprof shard: it is not a regular file$"):
        read_shard(tmp_path / "pipe")


def test_a_shard_ends_where_a_reader_could_not_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distprof.shard.writer.MAX_SHARD_BYTES", MAX_BODY_BYTES + 1000)
    writer = ShardWriter(sink := MemorySink())
    writer.write(HEADER)
    with pytest.raises(OSError, match="as long as a reader takes"):
        for _ in range(1000):
            writer.write(Error("filling", "x" * 100))
            writer.write(PLAN)
    writer.write(Error("writing its shard", "full"))
    assert len(sink.data) < MAX_BODY_BYTES + 1000
    assert parse_shard(bytes(sink.data)).records[-1] == Error("writing its shard", "full")


def test_records_of_one_moment_are_one_write_and_those_that_fit_are_kept() -> None:
    writer = ShardWriter(sink := NarrowSink([1, 3]))  # no room for both, nor for the second alone
    writer.write(HEADER)
    with pytest.raises(OSError, match="No space"):
        writer.write(PLAN, TREE)
    assert parse_shard(bytes(sink.data)).records == [HEADER, PLAN]
