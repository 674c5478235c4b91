"""What daemons tell each other through the key-value store of the job's rendezvous.

    daemons       how many daemons have come                  requests   how many requests were written
    status/N      the status of daemon N, or where it is      request    the last one
    status/N.S.P  piece P of a status in several pieces, of which two are kept in turn (S)

A job of 1,000 nodes shares the store: a node writes two values of less than 2 kB at most in an exchange.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from distprof.launcher.daemon.exchange.protocol import MAX_NODES, MAX_REQUEST_BYTES, MAX_STATUS_BYTES
from distprof.launcher.store.key_values import KeyValues

#: The most bytes of a value that a node writes again and again.
MAX_VALUE_BYTES = 2000
_MOST_PIECES = 255
#: Number of pieces (0: the status follows at once), which of the two it is, checksum.
_HEAD = struct.Struct("<BBI")
_PIECE_BYTES = MAX_VALUE_BYTES - _HEAD.size - 1


class StoreExchange:
    """The interface :class:`~distprof.launcher.daemon.exchange.protocol.Exchange`, in a store that all nodes reach."""

    def __init__(self, store: KeyValues) -> None:
        self._store = store
        self._number = 0  # of this daemon; 0: it has written nothing
        self._which = 0
        self._pending: list[tuple[str, bytes]] = []  # keys and values of a long status that are not written yet
        self._requests = 0
        self._request: bytes | None = None

    def publish_status(self, status: bytes) -> None:
        """Writes the status; of a long one two values at a time, and while they are written it takes no newer one."""
        if not self._number:
            self._number = self._store.add("daemons", 1)
        if not self._pending:
            self._pending = self._values(zlib.compress(status))
        for key, value in self._pending[:2]:
            self._store.set(key, value)
        del self._pending[:2]

    def _values(self, content: bytes) -> list[tuple[str, bytes]]:
        key = f"status/{self._number}"
        if len(content) <= _PIECE_BYTES:
            return [(key, _HEAD.pack(0, 0, zlib.crc32(content)) + content)]
        self._which = 1 - self._which
        pieces = [content[first : first + _PIECE_BYTES] for first in range(0, len(content), _PIECE_BYTES)]
        if len(pieces) > _MOST_PIECES:
            return []
        head = _HEAD.pack(len(pieces), self._which, zlib.crc32(content))
        return [*((f"{key}.{self._which}.{number}", piece) for number, piece in enumerate(pieces)), (key, head)]

    def statuses(self) -> Iterator[tuple[str, bytes]]:
        for number in range(1, min(self._store.add("daemons", 0), MAX_NODES) + 1):
            content = self._status(f"status/{number}") if number != self._number else b""
            if content:
                yield str(number), content

    def _status(self, key: str) -> bytes:
        """Returns a status; nothing for one that is missing, damaged or too long.  Raises OSError."""
        value = self._store.peek(key)
        if value is None or len(value) < _HEAD.size or len(value) > MAX_VALUE_BYTES:
            return b""
        pieces, which, checksum = _HEAD.unpack_from(value)
        parts = [value[_HEAD.size :]]
        for number in range(pieces):
            parts.append(self._store.peek(f"{key}.{which}.{number}") or b"")
            if len(parts[-1]) > MAX_VALUE_BYTES:
                return b""
        content = b"".join(parts)
        return _unpacked(content) if zlib.crc32(content) == checksum else b""

    def publish_request(self, request: bytes) -> None:
        self._store.set("request", request)
        self._store.add("requests", 1)

    def request(self) -> bytes | None:
        written = self._store.add("requests", 0)
        if written != self._requests:
            found = self._store.peek("request")
            self._requests = written
            self._request = found if found is not None and len(found) <= MAX_REQUEST_BYTES else None
        return self._request


def _unpacked(compressed: bytes) -> bytes:
    """Returns what was compressed; nothing for what is damaged or too long."""
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(compressed, MAX_STATUS_BYTES)
    except zlib.error:
        return b""
    return content if reader.eof else b""
