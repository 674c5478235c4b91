"""Reads shard files, damaged ones too.

The body of a record (see :mod:`distprof.shard.frames`) is the msgpack of ``[kind, sequence, payload]``.  The reader
returns every whole record once, in the order of sequence numbers, and reports what is missing.  Shards may come from
elsewhere: no file makes the reader raise another error than DataError, or allocate memory out of proportion to the size
of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from distprof.errors import DataError
from distprof.records import INT64, MAGIC, READ_BY, RECORDS, SCHEMA_VERSION, Header, Record, Step
from distprof.safe_files import NotRegular, TooLarge, read_beginning, read_regular
from distprof.shard.codec import RecordError
from distprof.shard.compression import Inflater
from distprof.shard.decoding import NO_CONTAINERS, Entry, RecordCache, decode, unpack
from distprof.shard.frames import FRAME_START, MAX_SHARD_BYTES, scan
from distprof.version import __version__

_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEADER_BYTES = 1 << 16  # longer than any header


class NotAShard(DataError):
    """The file does not begin with a distprof header that can be read."""


class OtherSchema(DataError):
    """The file was written in another major schema."""


@dataclass
class ReadReport:
    """The damage that a reader found in one file."""

    records: int = 0
    unread_bytes: int = 0
    unread_why: str = ""
    sequence_gaps: int = 0  # numbers without a record
    repeated: int = 0  # copies of records: nothing is lost
    unknown_kinds: dict[str, int] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)  # one line for each record that does not fit the schema

    @property
    def damaged(self) -> bool:
        """Whether a part of the shard is missing."""
        return bool(self.unread_bytes or self.sequence_gaps or self.malformed)


@dataclass
class Shard:
    """The records of one shard.  ``sequences`` has the number of each of the ``records``, ascending."""

    source: str
    header: Header
    records: list[Record]
    report: ReadReport
    sequences: list[int] = field(default_factory=list)


def read_header(path: Path) -> Header:
    """Reads the header only.  Raises DataError (NotAShard, OtherSchema) or OSError."""
    return parse_shard(_regular(path, read_beginning, _HEADER_BYTES), str(path)).header


def read_shard(path: Path, cache: RecordCache | None = None) -> Shard:
    """Reads all whole records of the file.  Raises DataError (NotAShard, OtherSchema) or OSError."""
    return parse_shard(_regular(path, read_regular, MAX_SHARD_BYTES), str(path), cache)


def last_ns(shard: Shard) -> int:
    """Returns when the writer is last known to have run (ns, wall time)."""
    steps = (record.start_wall_ns + record.duration_ns for record in shard.records if isinstance(record, Step))
    return max(steps, default=shard.header.wall_ns)


def _regular(path: Path, read: Callable[[Path, int], bytes], size: int) -> bytes:
    try:
        return read(path, size)
    except (NotRegular, TooLarge) as error:
        raise NotAShard(f"{path} is no distprof shard: {error.strerror}") from None


def parse_shard(data: bytes, source: str = "<memory>", cache: RecordCache | None = None) -> Shard:
    """Reads the records in a shard's bytes; ``source`` is its name in messages.  Raises NotAShard or OtherSchema."""
    found = scan(data)
    report = ReadReport(unread_bytes=found.unread_bytes, unread_why=found.why)
    if not found.bodies:
        raise NotAShard(f"{source} {_missing_header_reason(data)}")
    cache = cache or RecordCache()
    entries = _in_order(_entries(found.bodies, report, cache), report)
    shard = Shard(source, _header(entries, source), [], report)
    _decode_all(entries, shard, cache, Inflater(len(data)))
    return shard


def _missing_header_reason(data: bytes) -> str:
    if not data:
        return "is empty: its rank ended before it wrote anything"
    if data.startswith(FRAME_START) or MAGIC.encode() in data[:4096]:
        return "has a torn or damaged header: without its rank and its run nothing in it can be placed"
    return "is no distprof shard: it does not begin with a header"


def _entries(bodies: Sequence[bytes], report: ReadReport, cache: RecordCache) -> list[Entry]:
    entries, items = [], _Items(max(map(len, bodies)))
    for body in bodies:
        try:
            entries.append(_entry(body, items, cache))
        except RecordError as error:
            report.malformed.append(str(error))
    return entries


def _entry(body: bytes, items: _Items, cache: RecordCache) -> Entry:
    """Raises RecordError for a body, of whatever bytes, that is not the msgpack of [kind, sequence, payload]."""
    try:
        kind, sequence, payload = items.of(body, cache)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise RecordError(f"a record of {len(body)} bytes is not sound msgpack ({type(error).__name__})") from None
    is_kind = type(kind) is str and (kind in RECORDS or _KIND.fullmatch(kind))
    if is_kind and type(sequence) is int and 0 <= sequence <= INT64.high:
        return Entry(kind, sequence, payload)
    raise RecordError(f"a record of {len(body)} bytes is not [kind, sequence, payload]")


class _Items:
    """Reads the three items of bodies of bounded length; one unpacker reads all that are whole."""

    def __init__(self, longest: int) -> None:
        self._longest = max(1, longest)
        self._unpacker = self._new()

    def of(self, body: bytes, cache: RecordCache) -> tuple[Any, Any, bytes]:
        """Returns the kind, the sequence number and the payload's bytes.  Raises ValueError unless there are three.

        A payload that ``cache`` knows is not read again: of many ranks that have the same tree, one is.
        """
        unpacker, self._unpacker = self._unpacker, None
        if unpacker is None:
            unpacker = self._new()
        unpacker.feed(body)
        begin, length = unpacker.tell(), unpacker.read_array_header()
        kind, sequence = unpacker.unpack(), unpacker.unpack()
        payload = body[unpacker.tell() - begin :]
        if not cache.knows(kind, payload):
            unpacker.skip()
            if unpacker.tell() - begin != len(body):
                raise ValueError("more than three items")
            self._unpacker = unpacker
        if length != 3:
            raise ValueError("not three items")
        return kind, sequence, payload

    def _new(self) -> Any:
        return msgpack.Unpacker(max_buffer_size=self._longest, **NO_CONTAINERS)


def _in_order(entries: list[Entry], report: ReadReport) -> list[Entry]:
    """Sorts by sequence number, keeps the first entry of each number, and counts the missing numbers."""
    by_sequence: dict[int, Entry] = {}
    for entry in entries:
        by_sequence.setdefault(entry.sequence, entry)
    report.repeated = len(entries) - len(by_sequence)
    report.sequence_gaps = max(by_sequence, default=-1) + 1 - len(by_sequence)
    return [by_sequence[sequence] for sequence in sorted(by_sequence)]


def _header(entries: list[Entry], source: str) -> Header:
    if not entries or entries[0].kind != Header.KIND:
        raise NotAShard(f"{source} is no distprof shard: its first record is no header")
    try:
        payload = entries[0].payload
        _check_schema(unpack(Header.KIND, payload), source)
        header = decode(Header.KIND, payload)
    except RecordError as error:
        raise NotAShard(f"{source} has a header that cannot be: {error}") from None
    assert isinstance(header, Header)
    return header


def _check_schema(payload: Any, source: str) -> None:
    version = payload.get("schema") if isinstance(payload, dict) and payload.get("magic") == MAGIC else None
    if not (isinstance(version, list) and len(version) == 2 and all(type(number) is int for number in version)):
        raise NotAShard(f"{source} is no distprof shard: its first record is no distprof header")
    if version[0] != SCHEMA_VERSION[0]:
        reader = READ_BY.get(version[0])
        better = (
            f"merge with distprof {reader}, which reads it" if reader else "merge with the distprof that recorded it"
        )
        raise OtherSchema(
            f"{source} is of schema {version[0]}.{version[1]}, and distprof {__version__} reads {SCHEMA_VERSION[0]}.x: "
            f"{better}"
        )


def _decode_all(entries: list[Entry], shard: Shard, cache: RecordCache, inflater: Inflater) -> None:
    """Adds the decoded records to the shard, and the malformed ones to its report."""
    report = shard.report
    for entry in entries:
        if entry.kind not in RECORDS:
            report.unknown_kinds[entry.kind] = report.unknown_kinds.get(entry.kind, 0) + 1
            continue
        try:
            if entry.kind == Header.KIND and shard.records:
                raise RecordError("header: there is one before it")
            shard.records.append(cache.record_of(entry, inflater))
            shard.sequences.append(entry.sequence)
        except RecordError as error:
            report.malformed.append(str(error))
    report.records = len(shard.records)
