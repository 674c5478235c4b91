"""Decodes the payloads of records, each once: many ranks write the same model, and so the same payloads.

No payload allocates memory out of proportion to its length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from distprof.records import COMPRESSED, ExpertLayers, Parameters, Record, Tree
from distprof.shard.codec import RecordError, from_payload
from distprof.shard.compression import Inflater
from distprof.shard.validation import validate

_UNPACK = {"raw": False, "strict_map_key": True}
#: Without these limits msgpack may allocate memory for lengths that a damaged file claims.
NO_CONTAINERS = {"max_array_len": 0, "max_map_len": 0, "max_ext_len": 0}


class Entry(NamedTuple):
    """A record not yet decoded."""

    kind: str
    sequence: int
    payload: bytes


class RecordCache:
    """Records that many ranks write alike, decoded once; the readers of a run's shards share one cache.

    Such records are the same objects for every rank, so ranks with the same tree are found by identity.
    """

    _KINDS = frozenset(record.KIND for record in (Tree, Parameters, ExpertLayers))

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], Record] = {}
        self._keys: dict[int, tuple[str, bytes]] = {}  # by the id of the record, which stays its own
        # By content: other versions of zlib compress the same into other bytes.
        self._inflated: dict[tuple[str, bytes], Record] = {}

    def knows(self, kind: object, payload: bytes) -> bool:
        """Whether the payload was decoded before, and so is sound."""
        return type(kind) is str and kind in self._KINDS and (kind, payload) in self._known

    def record_of(self, entry: Entry, inflater: Inflater) -> Record:
        """Returns the entry's record, which is decoded once.  Raises RecordError."""
        if entry.kind not in self._KINDS:
            return decode(entry.kind, _content(entry, inflater))
        key = entry.kind, entry.payload
        if key not in self._known:
            content = _content(entry, inflater)
            if (entry.kind, content) not in self._inflated:
                self._inflated[entry.kind, content] = decode(entry.kind, content)
            record = self._known[key] = self._inflated[entry.kind, content]
            self._keys.setdefault(id(record), key)
        return self._known[key]

    def record(self, kind: str, payload: bytes) -> Record:
        """Returns the record of a payload that another cache has decoded."""
        return self.record_of(Entry(kind, 0, payload), Inflater(len(payload)))

    def key_of(self, record: Record) -> tuple[str, bytes]:
        """Returns the kind and the payload of a record that is kept."""
        return self._keys[id(record)]


def _content(entry: Entry, inflater: Inflater) -> bytes:
    """Returns the msgpack of the fields of an entry, which some kinds have compressed."""
    if entry.kind not in COMPRESSED:
        return entry.payload
    content = inflater.inflate(entry.kind, unpack(entry.kind, entry.payload))
    if not _is_one_value(content):
        raise RecordError(f"{entry.kind}: its compressed payload is not sound msgpack")
    return content


def _is_one_value(content: bytes) -> bool:
    """Returns whether the bytes are one msgpack value; nothing is allocated for the lengths that they claim."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(content)), **NO_CONTAINERS)
    unpacker.feed(content)
    try:
        unpacker.skip()
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        return False
    return bool(unpacker.tell() == len(content))


def decode(kind: str, content: bytes) -> Record:
    """Returns the record of a kind from the msgpack of its fields.  Raises RecordError."""
    record = from_payload(kind, unpack(kind, content))
    validate(record)
    return record


def unpack(kind: str, content: bytes) -> Any:
    """Returns what msgpack holds.  Raises RecordError, which names the kind."""
    try:
        return msgpack.unpackb(content, **_UNPACK)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{kind}: not sound msgpack ({type(error).__name__})") from None
