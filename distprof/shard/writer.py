"""Writes the shard file: numbered records, each under a checksum, one ``write()`` a record."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import msgpack

from distprof.records import Error, Header, Record
from distprof.shard.codec import to_payload
from distprof.shard.frames import MAX_BODY_BYTES, MAX_SHARD_BYTES, checksum, frame

_FIRST_FREE = 3  # of descriptors, behind those of the standard streams


class MemorySink:
    """A shard that stays in this process."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        pass


class DescriptorLost(OSError):
    """The script has closed the shard's descriptor; by now it may be a file of its own."""


class FileSink:
    """A shard on disk: created, never reopened; one ``write()`` a record: SIGKILL loses no other.

    The descriptor lies above those of the standard streams, and is seen to be the shard's still before it is used: a
    script that closes descriptors which it does not know gets their numbers for its own files.
    """

    def __init__(self, path: Path, folder: int | None = None) -> None:
        """``folder``: the descriptor of the folder that ``path`` lies in, where that is known by one."""
        self.path = path
        self._fd = _created(path if folder is None else Path(path.name), folder)
        found = os.fstat(self._fd)
        self._file = found.st_dev, found.st_ino
        self._whole = self._next = 0  # the bytes of all records but the last, and of all: in between an exception came

    def write(self, data: bytes) -> None:
        """Raises OSError; a record that did not fit whole (disk full) is taken back, so that the next may follow.

        Raises DescriptorLost, from then on, where the descriptor is no longer the shard's.
        """
        self._whole = self._after_the_last_record()
        self._next = self._whole + len(data)
        written = 0
        try:
            while written < len(data):  # a write that a full disk cut short says why when it is called again
                written += os.write(self._fd, data[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._look()
            os.close(self._fd)
        self._fd = -1

    def _after_the_last_record(self) -> int:
        """Where the next one goes.  Of one in whose writing an exception came from outside nothing is left."""
        size = self._look().st_size
        if self._whole < size < self._next:
            os.ftruncate(self._fd, self._whole)
            return self._whole
        return size

    def _look(self) -> os.stat_result:
        """The shard's state.  Raises DescriptorLost where that is not what the descriptor is of."""
        found: os.stat_result | None = None
        with contextlib.suppress(OSError):
            found = os.fstat(self._fd)
        if found is None or (found.st_dev, found.st_ino) != self._file or found.st_size < self._whole:
            self._fd = -1  # not ours to close
            raise DescriptorLost(errno.EBADF, "the script has closed the descriptor of its shard")
        return found


def _created(path: Path, folder: int | None) -> int:
    """A descriptor of the new file.  What is still written to a standard stream that was closed must not come here."""
    below: list[int] = []
    try:
        while not below or below[-1] < _FIRST_FREE:
            below.append(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o644, dir_fd=folder)
    finally:
        for fd in below:
            os.close(fd)


class ShardWriter:
    """Numbers records and hands them to a sink, from one thread at a time.  The first record is the Header."""

    def __init__(self, sink: FileSink | MemorySink) -> None:
        self.sink = sink
        self._sequence = 0
        self._first: int | None = None  # checksum of the header, once it is written
        self._room = MAX_SHARD_BYTES - MAX_BODY_BYTES  # what is over is for the record that says why there is no more
        # Kept, because it makes room for a megabyte.  Text that is no Unicode (undecodable file names) is escaped.
        self._packer = msgpack.Packer(unicode_errors="backslashreplace")

    def write(self, record: Record) -> None:
        """Raises OSError when the sink cannot take it, or the shard is full; the sequence number is then spent, so that
        readers see the gap.

        Raises RecordError or ValueError for what no shard can hold, such as a record longer than any reader takes.
        """
        if isinstance(record, Header) != (self._first is None):
            raise ValueError(f"a shard has one header, which comes first: this is {record.KIND!r}")
        body: bytes = self._packer.pack([record.KIND, self._sequence, to_payload(record)])
        own_checksum = checksum(body, self._first or 0)
        framed = frame(body, own_checksum)
        if self._first is None:
            self.sink.write(framed)
            self._first = own_checksum
            self._sequence = 1
        else:
            self._sequence += 1
            if self._room < len(framed) and not isinstance(record, Error):
                raise OSError(errno.EFBIG, "the shard is as long as a reader takes")
            self.sink.write(framed)
        self._room -= len(framed)

    def close(self) -> None:
        self.sink.close()
