"""Writes shards without free space from a random byte on, each in its own process.

A file system of a few pages becomes full (in the process's own mount namespace: it needs no root where users may have
one), a limit on the file size is reached, or /dev/full replaces the shard for some records.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import msgpack

from distprof.recorder.shard_output import ShardOutput, open_shard
from distprof.records import Error, Header
from distprof.run_folder import RunFolder
from distprof.shard.codec import to_payload
from distprof.shard.frames import frame
from distprof.shard.reader import read_shard
from distprof.shard.writer import FileSink, ShardWriter
from soak.originals import Original, Random, original
from soak.reader_checks import ALL, judge
from soak.trials import Kind, Outcome

SAYS_WHY, NO_WORD, NO_HEADER = "says why", "no word fits", "no header fits"
A_GAP, ENOUGH, NOT_MOUNTED = "a gap", "all fits", "none to be had"
_PAGE = os.sysconf("SC_PAGE_SIZE")  # the unit of free space in such a file system
_NEW_MOUNTS, _NEW_USER, _PRIVATE = 0x20000, 0x10000000, (1 << 18) | (1 << 14)
_CANNOT_MOUNT = 77


def fill(rng: Random, folder: Path) -> Outcome:
    """Writes one shard without enough free space, in a folder inside ``folder``."""
    one = original("run", 1, rng.choice((2, 4, 40)), script="x" * rng.randrange(5000))
    abuse = rng.choice((full_file_system, file_size_limit, room_again, dev_full))
    place = folder / "trial"
    (place / "elsewhere").mkdir(parents=True)
    verdict = abuse(rng, one, place)
    shutil.rmtree(place)
    return Outcome(abuse.__name__, verdict)


def full_file_system(rng: Random, one: Original, place: Path) -> str:
    """A rank writes to a file system of so many pages."""
    pages, run = rng.randrange(1, 2 + len(one.data) // _PAGE), RunFolder(place / "run")
    run.path.mkdir()

    def work() -> int:
        if not _mount(run.path, pages * _PAGE):
            return _CANNOT_MOUNT
        run.shards.mkdir()
        _write_as_a_rank(one, run, place)
        shutil.copytree(run.path, place / "kept")  # out of this process's own file system
        return 0

    code, said = _in_a_process(work)
    if code == _CANNOT_MOUNT:
        return NOT_MOUNTED
    return _check(one, pages * _PAGE, RunFolder(place / "kept"), said, "No space left on device")


def file_size_limit(rng: Random, one: Original, place: Path) -> str:
    """A rank may write so many bytes to any file."""
    limit, run = rng.randrange(len(one.data) + 200), RunFolder(place / "run")
    run.shards.mkdir(parents=True)

    def work() -> int:
        _limit(limit)
        _write_as_a_rank(one, run, place)
        return 0

    _, said = _in_a_process(work)
    return _check(one, limit, run, said, "File too large")


def room_again(rng: Random, one: Original, place: Path) -> str:
    """Has no free space for some records, then has some again: the writer goes on, and the reader reports the gap."""
    limit, until = rng.randrange(one.edges[1], len(one.data)), rng.randrange(1, len(one.records) + 1)

    def work() -> int:
        sink = FileSink(place / "shard")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        _limit(limit)
        _write_what_fits(one, sink, lambda number: _limit(unlimited) if number == until else None)
        return 0

    _in_a_process(work)
    return ENOUGH if judge((place / "shard").read_bytes(), [one]) == ALL else A_GAP


def dev_full(rng: Random, one: Original, place: Path) -> str:
    """/dev/full receives some records; those before and after it are in the shard."""
    first = rng.randrange(1, len(one.records))
    until = rng.randrange(first, len(one.records) + 1)

    def work() -> int:
        sink = FileSink(place / "shard")
        shard, full = os.dup(sink._fd), os.open("/dev/full", os.O_WRONLY)
        places = {first: full, until: shard}  # where they are equal, there was no full disk
        _write_what_fits(one, sink, lambda n: _redirect(sink, places[n]) if n in places else None)
        return 0

    _in_a_process(work)
    data = (place / "shard").read_bytes()
    judge(data, [one])
    assert len(data) == one.edges[first] + len(one.data) - one.edges[until], "more was lost than what had no room"
    return A_GAP if until > first else ENOUGH


def _redirect(sink: FileSink, to: int) -> None:
    """Lets the sink write to the file of another descriptor as if it was its own."""
    os.dup2(to, sink._fd)
    found = os.fstat(sink._fd)
    sink._file = found.st_dev, found.st_ino
    sink._whole = sink._next = found.st_size


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _write_as_a_rank(one: Original, run: RunFolder, place: Path) -> None:
    tempfile.tempdir = str(place / "elsewhere")
    header = one.records[0]
    assert isinstance(header, Header)
    writer = open_shard(run, header, lambda: False)
    if writer is not None:
        output = ShardOutput(writer, header.rank)
        output.write(*one.records[1:])
        output.close()


def _write_what_fits(one: Original, sink: FileSink, before: Callable[[int], object]) -> None:
    """Writes every record, or ignores its OSError; calls ``before`` with the number of each."""
    writer = ShardWriter(sink)
    for number, record in enumerate(one.records):
        before(number)
        try:
            writer.write(record)
        except OSError:
            assert number, "the header has room"


def _check(one: Original, room: int, run: RunFolder, said: str, why: str) -> str:
    """Checks that all records that fit into ``room`` bytes are whole in the shard, and that one line was printed."""
    whole = sum(edge <= room for edge in one.edges) - 1
    if whole == len(one.records):
        (path,) = run.shard_files()
        assert (read_shard(path).records, said) == (list(one.records), ""), said
        return ENOUGH
    assert said.count("\n") == 1 and why in said, f"no clear line: {said!r}"
    if not whole:
        assert not run.shard_files(), "a piece of a header was left behind"
        return NO_HEADER
    (path,) = run.shard_files()
    shard, last_word = read_shard(path), Error("writing its shard", why)
    assert shard.report.unread_bytes == 0, "a piece of a record was left behind"
    fits = one.edges[whole] + _length(last_word, whole + 1) <= room
    assert shard.records == [*one.records[:whole], *([last_word] if fits else [])], "not what fitted"
    return SAYS_WHY if fits else NO_WORD


def _length(error: Error, sequence: int) -> int:
    return len(frame(msgpack.packb([error.KIND, sequence, to_payload(error)]), 0))


def _in_a_process(work: Callable[[], int]) -> tuple[int, str]:
    """Returns the result of ``work`` in a child process, and its stderr (a pipe: the child's limits do not apply)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  of the tests' own there may be none
        try:
            os._exit(work())
        except BaseException:
            print(traceback.format_exc(), flush=True, file=sys.stderr)
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:  # noqa: PTH123
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _CANNOT_MOUNT), f"the writer broke:\n{said}"
    return code, said


def _mount(folder: Path, size: int) -> bool:
    """Mounts a file system of ``size`` bytes at ``folder``, for this process only; returns False if not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_NEW_USER | _NEW_MOUNTS) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    elif libc.unshare(_NEW_MOUNTS):
        return False
    options = f"size={size},mode=755".encode()  # the rank's own, as run folders are
    mounts = [(b"/", None, _PRIVATE, None), (bytes(folder), b"tmpfs", 0, options)]
    return not any(libc.mount(b"none", place, kind, ctypes.c_ulong(how), more) for place, kind, how, more in mounts)


VERDICTS = (SAYS_WHY, NO_WORD, NO_HEADER, A_GAP, ENOUGH, NOT_MOUNTED)
FULL_DISKS = Kind("full-disks", fill, VERDICTS, "all that fitted is there and whole")
