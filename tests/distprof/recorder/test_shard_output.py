"""Tests of the shard's place: the run folder, else a temporary folder, else none; never an exception."""

from __future__ import annotations

import errno
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from distprof.console import say
from distprof.recorder.shard_output import ShardOutput, open_shard
from distprof.records import End, Error, Header, Plan
from distprof.run_folder import RunFolder
from distprof.shard.reader import parse_shard, read_shard
from distprof.shard.writer import MemorySink, ShardWriter


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.shards.mkdir(parents=True)
    return run


HEADER = Header(run_id="r", rank=3, world_size=4)


def nobody() -> bool:
    """No other process is the rank."""
    return False


def test_generations_follow_one_another(run: RunFolder) -> None:
    """A restarted rank writes a new shard beside its earlier one."""
    for generation in range(3):
        writer = open_shard(run, HEADER, nobody)
        assert writer is not None
        writer.close()
        assert read_shard(run.shard_path(3, generation)).header == replace(HEADER, generation=generation)
    assert [path.name for path in run.shard_files()] == [f"rank00003.g{generation}.msgpack" for generation in range(3)]


@pytest.fixture
def nowhere(tmp_path: Path) -> RunFolder:
    """A run whose folder is a file: not even root can write into it."""
    (tmp_path / "file").write_text("")
    return RunFolder(tmp_path / "file")


def test_unwritable_folder_is_replaced_by_a_temporary_one(
    nowhere: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writer = open_shard(nowhere, HEADER, nobody)
    assert writer is not None
    writer.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("distprof: rank 3 cannot write to") and "Not a directory" in line
    elsewhere = RunFolder(Path(line.rpartition(" ")[2]))
    assert elsewhere.path.parent == tmp_path
    (shard,) = elsewhere.shard_files()
    assert read_shard(shard).header.rank == 3


def test_where_nothing_can_be_written_there_is_no_shard(
    nowhere: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", _no_room)
    assert open_shard(nowhere, HEADER, nobody) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("distprof: rank 3 is not recorded")


def _no_room(**_: str) -> str:
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_folder_is_replaced_and_stays_empty(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with file_size_limit(40):
        assert open_shard(run, HEADER, nobody) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"distprof: rank 3 is not recorded: neither {run.shards} (File too large) nor a temporary folder can be written"
    )
    assert run.shard_files() == []


def test_a_full_disk_keeps_the_reason(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that did not fit leaves free space after what was written."""
    writer = open_shard(run, HEADER, nobody)
    assert writer is not None
    output = ShardOutput(writer, rank=3)
    with file_size_limit(600):
        output.write(Plan(1, 1, 1), Error("a long one", "x" * 1000), End("exit", 1))
    assert output.lost
    shard = read_shard(run.shard_path(3, 0))
    assert shard.records == [HEADER, Plan(1, 1, 1), Error("writing its shard", "File too large")]
    assert (shard.report.sequence_gaps, shard.report.unread_bytes) == (2, 0), "the long one, and what came with it"
    said = "distprof: rank 3 stops recording, what it recorded so far is kept: File too large\n"
    assert capsys.readouterr().err == said


class Slow(MemorySink):
    """A sink that takes 20 ms for each write."""

    def write(self, data: bytes) -> None:
        time.sleep(0.02)
        super().write(data)


def test_waiting_for_a_slow_file_system_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    sink = Slow()
    output = ShardOutput(ShardWriter(sink), rank=3, patience_s=0.05)
    ends = [End("exit", number) for number in range(100)]
    output.write(HEADER)
    for end in ends:
        output.write(end)
    assert output.lost
    records = parse_shard(bytes(sink.data)).records
    last = records.pop()
    assert isinstance(last, Error) and last.where == "writing its shard"
    assert records == [HEADER, *ends[: len(records) - 1]] and len(records) <= 4, "20 ms are the least that each takes"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("writing it keeps the job waiting, the file system is too slow")


class FullDisk(MemorySink):
    """A sink with space for some writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes
        self.closed = False

    def write(self, data: bytes) -> None:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1
        super().write(data)

    def close(self) -> None:
        self.closed = True


def test_full_disk_keeps_earlier_records(capfd: pytest.CaptureFixture[str]) -> None:
    sink = FullDisk(1)
    output = ShardOutput(ShardWriter(sink), rank=3)
    output.write(HEADER, Plan(1, 1, 1))
    assert not output.lost
    output.write(End("exit", 1), End("exit", 2))
    output.write(End("exit", 3))
    assert output.lost and sink.closed
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("distprof: rank 3 stops recording") and "No space left on device" in line
    assert parse_shard(bytes(sink.data)).records == [HEADER, Plan(1, 1, 1)]


def test_an_abandoned_shard_is_left_to_its_owner(capfd: pytest.CaptureFixture[str]) -> None:
    sink = FullDisk(5)
    output = ShardOutput(ShardWriter(sink), rank=3)
    output.write(HEADER)
    output.abandon()
    output.write(End("exit", 1))
    output.close()
    assert output.lost and not sink.closed
    assert parse_shard(bytes(sink.data)).records == [HEADER]
    assert capfd.readouterr().err == ""


def test_a_console_message_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr in (None, _Broken()):
        monkeypatch.setattr("sys.stderr", stderr)
        say("a line")


class _Broken:
    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")
