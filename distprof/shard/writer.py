"""Writes the shard file: numbered records, each with a checksum, with one ``write()`` for those of one moment."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import msgpack

from distprof.records import COMPRESSED, Error, Header, Record
from distprof.shard.codec import to_payload
from distprof.shard.compression import compress
from distprof.shard.frames import MAX_BODY_BYTES, MAX_SHARD_BYTES, checksum, frame

_FIRST_FREE = 3  # the first descriptor after those of the standard streams


class MemorySink:
    """A shard that stays in this process."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        pass


class DescriptorLost(OSError):
    """The script has closed the shard's descriptor, and may have opened a file with its number."""


class FileSink:
    """A shard on disk.  It is created and never reopened.  The records of one moment are one ``write()``, so SIGKILL
    loses those at most.

    The descriptor is above those of the standard streams.  Each use checks that it still belongs to the shard: a script
    may close descriptors that it does not know, and get their numbers for its own files.
    """

    def __init__(self, path: Path, folder: int | None = None) -> None:
        """``folder``: the descriptor of the folder of ``path``, if there is one."""
        self.path = path
        self._fd = _created(path if folder is None else Path(path.name), folder)
        found = os.fstat(self._fd)
        self._file = found.st_dev, found.st_ino
        self._whole = self._next = 0  # where the last two writes end

    def write(self, data: bytes) -> None:
        """Raises OSError; records that did not fit (disk full) are removed, so that the next ones can follow.

        Raises DescriptorLost once the descriptor no longer belongs to the shard.
        """
        self._whole = self._end_of_records()
        self._next = self._whole + len(data)
        written = 0
        try:
            while written < len(data):  # after a write that a full disk cut short, the next one raises the reason
                written += os.write(self._fd, data[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise

    def is_in_place(self) -> bool:
        """Whether the shard is still the file of its path."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._checked_state()
            os.close(self._fd)
        self._fd = -1

    def _end_of_records(self) -> int:
        """Returns the end of the last record.  Removes the rest of records whose writing an exception interrupted."""
        size = self._checked_state().st_size
        if self._whole < size < self._next:
            os.ftruncate(self._fd, self._whole)
            return self._whole
        return size

    def _checked_state(self) -> os.stat_result:
        """Returns the state of the shard's file.  Raises DescriptorLost if the descriptor belongs to another file."""
        found: os.stat_result | None
        try:  # not contextlib.suppress, whose calls are a tenth of a write at the end of a timed step
            found = os.fstat(self._fd)
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file or found.st_size < self._whole:
            self._fd = -1  # not ours to close
            raise DescriptorLost(errno.EBADF, "the script has closed the descriptor of its shard")
        return found


def _created(path: Path, folder: int | None) -> int:
    """Creates the file with a descriptor above those of the standard streams.

    Otherwise text for a standard stream that was closed could be written into the shard.
    """
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
    """Numbers records and passes them to a sink, from one thread at a time.  The first record is the Header."""

    def __init__(self, sink: FileSink | MemorySink) -> None:
        self.sink = sink
        self._sequence = 0
        self._first: int | None = None  # checksum of the header, once there is one
        self._is_empty = True
        self._bytes_left = MAX_SHARD_BYTES - MAX_BODY_BYTES  # the rest is for the record with the reason of the end
        # One packer for all records, because it allocates a megabyte.  Text that is not Unicode (file names) is
        # escaped.
        self._packer = msgpack.Packer(unicode_errors="backslashreplace")

    def write(self, *records: Record) -> None:
        """Writes records with one ``write()``.  Raises OSError if the sink fails, or if the shard is full; readers then
        see a sequence gap.

        Raises RecordError or ValueError for a record that no shard can hold, such as one that is too long; those before
        it are written.
        """
        frames: list[bytes] = []
        try:
            for record in records:
                frames.append(self._frame(record))
        finally:
            if frames:
                self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        try:
            self.sink.write(b"".join(frames))
        except BaseException as error:
            if self._is_empty:  # the header may be written again
                self._sequence, self._first = 0, None
            if len(frames) == 1 or not isinstance(error, OSError):
                raise
            for one in frames:  # those that fit are kept
                self.sink.write(one)
        self._is_empty = False

    def _frame(self, record: Record) -> bytes:
        """Returns the next record as bytes of the file."""
        if isinstance(record, Header) != (self._first is None):
            raise ValueError(f"a shard has one header, which comes first: this is {record.KIND!r}")
        payload: Any = to_payload(record)
        if record.KIND in COMPRESSED:
            payload = compress(self._packer.pack(payload))
        body: bytes = self._packer.pack([record.KIND, self._sequence, payload])
        own_checksum = checksum(body, self._first or 0)
        framed = frame(body, own_checksum)
        if self._first is None:
            self._first = own_checksum
        self._sequence += 1
        if self._bytes_left < len(framed) and not isinstance(record, Error):
            raise OSError(errno.EFBIG, "the shard is as long as a reader takes")
        self._bytes_left -= len(framed)
        return framed

    def close(self) -> None:
        self.sink.close()
