"""The shard file: a msgpack stream of checksummed records, its writer, and a reader that survives damage.

Every record is the msgpack array ``[crc32, body]`` in one fixed spelling, 11 bytes and the body::

    92  ce <crc32: 4 bytes>  c6 <length of body: 4 bytes>  <body>        (big-endian, as msgpack has it)

``body`` is the msgpack of ``[kind, sequence, payload]``.  The fixed spelling lets the reader find the next whole record
after damage, a flipped length included; any msgpack library reads an undamaged file as it is.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from distprof.codec import RecordError, from_payload, to_payload
from distprof.errors import DataError
from distprof.records import MAGIC, RECORDS, SCHEMA_VERSION, Header, Record

_FRAME = struct.Struct(">BBIBI")
_ARRAY_OF_2, _UINT32, _BIN32 = 0x92, 0xCE, 0xC6
_FRAME_START = bytes((_ARRAY_OF_2, _UINT32))

#: No writer makes a longer record; a longer length in a file is damage.
MAX_BODY_BYTES = 1 << 28
#: Damaged bytes may look like many long records: checksumming them may cost this many times the file, no more.
_RESYNC_BUDGET = 8


class NotAShard(DataError):
    """The file does not begin with a distprof header."""


class NewerSchema(DataError):
    """The file was written by a distprof with a newer major schema."""


def encode(record: Record, sequence: int) -> bytes:
    """One record as it stands in the file."""
    body: bytes = msgpack.packb([record.KIND, sequence, to_payload(record)], use_bin_type=True)
    return _FRAME.pack(_ARRAY_OF_2, _UINT32, zlib.crc32(body), _BIN32, len(body)) + body


class MemorySink:
    """A shard that stays in this process."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        pass


class FileSink:
    """A shard on disk: created, never reopened; one ``write()`` a record, so that SIGKILL loses the one being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, data: bytes) -> None:
        """Raises OSError; a record that did not fit whole (disk full) is taken back, so that the next may follow."""
        end = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(28, "no space left for a whole record", str(self.path))
        except OSError:
            os.ftruncate(self._fd, end)
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ShardWriter:
    """Numbers records and hands them to a sink."""

    def __init__(self, sink: FileSink | MemorySink) -> None:
        self.sink = sink
        self._sequence = 0

    def write(self, record: Record) -> None:
        """Raises OSError when the sink cannot take it; the sequence number is then spent, so that readers see the gap."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        self.sink.write(encode(record, sequence))

    def close(self) -> None:
        self.sink.close()


@dataclass
class ReadReport:
    """What a reader met in one file."""

    records: int = 0
    unread_bytes: int = 0
    unread_why: str = ""
    sequence_gaps: int = 0  # records that were numbered but are not there
    unknown_kinds: dict[str, int] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        return bool(self.unread_bytes or self.sequence_gaps or self.malformed)


@dataclass
class Shard:
    """One shard, read."""

    source: str
    header: Header
    records: list[Record]
    report: ReadReport


def read_shard(path: Path) -> Shard:
    """All that can be read of the file.  Raises DataError (NotAShard, NewerSchema) or OSError."""
    return parse_shard(path.read_bytes(), str(path))


def parse_shard(data: bytes, source: str = "<memory>") -> Shard:
    """All that can be read of a shard's bytes; ``source`` names it in messages."""
    report = ReadReport()
    records: list[Record] = []
    expected = 0
    for body in _bodies(data, report):
        kind, sequence, payload = _unpack(body, report)
        if kind is None:
            continue
        if kind == Header.KIND and not records:
            _check_schema(payload, source)
        report.sequence_gaps += max(0, sequence - expected)
        expected = sequence + 1
        if kind not in RECORDS:
            report.unknown_kinds[kind] = report.unknown_kinds.get(kind, 0) + 1
            continue
        try:
            records.append(from_payload(kind, payload))
        except RecordError as error:
            report.malformed.append(str(error))
    report.records = len(records)
    if not records or not isinstance(records[0], Header):
        raise NotAShard(f"{source} is no distprof shard: it does not begin with a readable header")
    return Shard(source, records[0], records, report)


def _check_schema(payload: Any, source: str) -> None:
    version = payload.get("schema") if isinstance(payload, dict) and payload.get("magic") == MAGIC else None
    if not (isinstance(version, list) and version and isinstance(version[0], int)):
        raise NotAShard(f"{source} is no distprof shard: its first record is no distprof header")
    if version[0] > SCHEMA_VERSION[0]:
        raise NewerSchema(
            f"{source} was written in schema {'.'.join(map(str, version))}, this distprof reads up to "
            f"{SCHEMA_VERSION[0]}.x: merge with the distprof that recorded it, or a newer one"
        )


def _unpack(body: bytes, report: ReadReport) -> tuple[str | None, int, Any]:
    """(kind, sequence, payload) of a body whose checksum held; kind None, and a line in the report, if it is no record."""
    try:
        # Sizes are bounded by the body's own length (unpackb's default); nesting by msgpack's own limit.
        kind, sequence, payload = msgpack.unpackb(body, raw=False, strict_map_key=True)
        if isinstance(kind, str) and type(sequence) is int and 0 <= sequence < 1 << 63:
            return kind, sequence, payload
        why = "is not [kind, sequence, payload]"
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        why = f"is not msgpack of a record ({error})"
    report.malformed.append(f"a body of {len(body)} bytes {why}")
    return None, 0, None


def _bodies(data: bytes, report: ReadReport) -> Iterator[bytes]:
    """The bodies whose checksums hold, in order; what lies between is counted as unread."""
    position, budget = 0, _RESYNC_BUDGET * len(data)
    while position < len(data):
        body = _body_at(data, position)
        if body is not None:
            yield body
            position += _FRAME.size + len(body)
            continue
        following, budget = _next_record(data, position + 1, budget)
        report.unread_bytes += following - position
        report.unread_why = "the last record is torn" if following == len(data) else "a record is damaged"
        position = following


def _frame_at(data: bytes, position: int) -> tuple[int, int] | None:
    """(checksum, length of body) if a frame that fits in the file stands here."""
    if position + _FRAME.size > len(data):
        return None
    array, uint, crc, binary, length = _FRAME.unpack_from(data, position)
    fits = length <= min(MAX_BODY_BYTES, len(data) - position - _FRAME.size)
    return (crc, length) if (array, uint, binary) == (_ARRAY_OF_2, _UINT32, _BIN32) and fits else None


def _body_at(data: bytes, position: int) -> bytes | None:
    frame = _frame_at(data, position)
    if frame is None:
        return None
    start = position + _FRAME.size
    body = data[start : start + frame[1]]
    return body if zlib.crc32(body) == frame[0] else None


def _next_record(data: bytes, position: int, budget: int) -> tuple[int, int]:
    """(where the next whole record begins, or the end of the data; what is left of the budget)."""
    while budget > 0 and (position := data.find(_FRAME_START, position)) >= 0:
        frame = _frame_at(data, position)
        if frame is not None:
            budget -= frame[1]
            if _body_at(data, position) is not None:
                return position, budget
        position += 1
    return len(data), budget
