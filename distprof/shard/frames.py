"""Frames: the layout of records in a shard, and the search for whole records after damage.

Every record is the msgpack array ``[checksum, body]`` in one fixed encoding, 11 bytes and the body::

    92  ce <checksum: 4 bytes>  c6 <length of body: 4 bytes>  <body>        (big-endian, as in msgpack)

The fixed encoding lets a reader find the next whole record after damage, even of a length; any msgpack library reads an
undamaged file.  The checksum of the first record is the CRC-32 of its body; the checksum of every other record is the
CRC-32 of the first record's body followed by its own body.  So a record is valid only in the file that it was written
to: two concatenated shards, or a copy that was resumed over another run's file, are noticed.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

_FRAME = struct.Struct(">BBIBI")
_ARRAY_OF_2, _UINT32, _BIN32 = 0x92, 0xCE, 0xC6
_FRAME_PATTERN = re.compile(rb"\x92\xce.{4}\xc6", re.DOTALL)
#: The first bytes of every shard.
FRAME_START = bytes((_ARRAY_OF_2, _UINT32))

#: No writer makes a longer record; a longer length in a file is damage.
MAX_BODY_BYTES = 1 << 25
#: No writer makes a longer shard: a reader loads it as a whole.
MAX_SHARD_BYTES = 1 << 31
#: Damaged bytes may look like many long records: their checksums may cover at most this many times the file.
_SEARCH_BUDGET = 8


def checksum(body: bytes | memoryview, first: int = 0) -> int:
    """Returns the checksum of a body; ``first`` is the checksum of the shard's first record, 0 for that record."""
    return zlib.crc32(body, first)


def frame(body: bytes, checksum: int) -> bytes:
    """Returns one record as bytes of the file.  Raises ValueError for a body that is too long for readers."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a record of {len(body)} bytes is too long for a shard: {MAX_BODY_BYTES} is the limit")
    return _FRAME.pack(_ARRAY_OF_2, _UINT32, checksum, _BIN32, len(body)) + body


@dataclass
class Scan:
    """The bodies of all whole records of a file, in file order, and the damage between and after them."""

    bodies: list[bytes] = field(default_factory=list)
    unread_bytes: int = 0
    damaged_places: int = 0
    torn: bool = False  # the file ends within a record
    gave_up: bool = False  # damage that looks like too many records: the rest was not searched

    @property
    def why(self) -> str:
        """The reason why bytes were left unread, empty if none were."""
        places = "a record is damaged" if self.damaged_places == 1 else f"{self.damaged_places} places are damaged"
        reasons = (places if self.damaged_places else "", "the last record is torn" if self.torn else "")
        return " and ".join(filter(None, reasons)) + (", and the search for more was given up" if self.gave_up else "")


def scan(data: bytes) -> Scan:
    """Finds every whole record, in time linear in the length of ``data``."""
    return _Scanner(data).run()


class _Scanner:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._first = 0  # checksum of the first whole record, 0 until it is found
        self._budget = _SEARCH_BUDGET * len(data)
        self._found = Scan()

    def run(self) -> Scan:
        position = 0
        while position < len(self._data):
            body = self._body_at(position)
            if body is None:
                following = self._next_record(position)
                self._note_damage(position, following)
                position = following
            else:
                if not self._found.bodies:
                    self._first = checksum(body)
                self._found.bodies.append(bytes(body))
                position += _FRAME.size + len(body)
        return self._found

    def _body_at(self, position: int) -> memoryview | None:
        """Returns the body of the record at this position, if it is whole."""
        limit = self._body_limit(position)
        if limit < 0:
            return None
        array, uint, expected, binary, length = _FRAME.unpack_from(self._data, position)
        if (array, uint, binary) != (_ARRAY_OF_2, _UINT32, _BIN32) or length > limit or length > MAX_BODY_BYTES:
            return None
        start = position + _FRAME.size
        body = self._view[start : start + length]
        self._budget -= length
        return body if checksum(body, self._first) == expected else None

    def _body_limit(self, position: int) -> int:
        """Returns the number of bytes that are left for the body of a frame at this position."""
        return len(self._data) - position - _FRAME.size

    def _next_record(self, position: int) -> int:
        """Returns the begin of the next whole record after ``position``, or the end of the data."""
        while (match := _FRAME_PATTERN.search(self._data, position + 1)) is not None:
            position = match.start()
            if self._budget < 0:
                self._found.gave_up = True
                break
            if self._body_at(position) is not None:
                return position
        return len(self._data)

    def _note_damage(self, start: int, end: int) -> None:
        self._found.unread_bytes += end - start
        if end == len(self._data) and self._is_torn(start):
            self._found.torn = True
        else:
            self._found.damaged_places += 1

    def _is_torn(self, position: int) -> bool:
        """Whether the data ends within the record at this position."""
        if self._body_limit(position) < 0:
            return True
        length: int = _FRAME.unpack_from(self._data, position)[4]
        return (
            _FRAME_PATTERN.match(self._data, position) is not None
            and self._body_limit(position) < length <= MAX_BODY_BYTES
        )
