"""Frames: how records follow one another in a shard, and how whole ones are found again after damage.

Every record is the msgpack array ``[checksum, body]`` in one fixed spelling, 11 bytes and the body::

    92  ce <checksum: 4 bytes>  c6 <length of body: 4 bytes>  <body>        (big-endian, as msgpack has it)

The fixed spelling lets a reader find the next whole record after damage, a flipped length included; any msgpack
library reads an undamaged file as it is.  The checksum of the first record is the CRC-32 of its body; that of every
other is the CRC-32 of the first record's body followed by its own, so that a record holds in the file that it was
written to and in no other: two shards run together, or a copy resumed over another run's file, are noticed.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field

_FRAME = struct.Struct(">BBIBI")
_ARRAY_OF_2, _UINT32, _BIN32 = 0x92, 0xCE, 0xC6
_FRAME_PATTERN = re.compile(rb"\x92\xce.{4}\xc6", re.DOTALL)
#: What the first bytes of every shard look like.
FRAME_START = bytes((_ARRAY_OF_2, _UINT32))

#: No writer makes a longer record; a longer length in a file is damage.
MAX_BODY_BYTES = 1 << 25
#: No writer makes a longer shard: to be read, it is read whole.
MAX_SHARD_BYTES = 1 << 31
#: Damaged bytes may look like many long records: checksumming them may cost this many times the file, no more.
_SEARCH_BUDGET = 8


def checksum(body: bytes | memoryview, first: int = 0) -> int:
    """The checksum of a body; ``first`` is the checksum of the shard's first record, 0 for that record itself."""
    return zlib.crc32(body, first)


def frame(body: bytes, checksum: int) -> bytes:
    """One record as it stands in the file.  Raises ValueError for a body that no reader would take."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a record of {len(body)} bytes is too long for a shard: {MAX_BODY_BYTES} is the limit")
    return _FRAME.pack(_ARRAY_OF_2, _UINT32, checksum, _BIN32, len(body)) + body


@dataclass
class Scan:
    """The bodies of all whole records of a file, in its order, and what lies between and after them."""

    bodies: list[bytes] = field(default_factory=list)
    unread_bytes: int = 0
    damaged_places: int = 0
    torn: bool = False  # the file ends within a record
    gave_up: bool = False  # damage that looks like too many records: the rest was not searched

    @property
    def why(self) -> str:
        """Why bytes were left unread, empty if none were."""
        places = "a record is damaged" if self.damaged_places == 1 else f"{self.damaged_places} places are damaged"
        reasons = (places if self.damaged_places else "", "the last record is torn" if self.torn else "")
        return " and ".join(filter(None, reasons)) + (", and the search for more was given up" if self.gave_up else "")


def scan(data: bytes) -> Scan:
    """Find every whole record; costs time linear in ``data``, whatever it holds."""
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
                following = self._following(position)
                self._note_damage(position, following)
                position = following
            else:
                if not self._found.bodies:
                    self._first = checksum(body)
                self._found.bodies.append(bytes(body))
                position += _FRAME.size + len(body)
        return self._found

    def _body_at(self, position: int) -> memoryview | None:
        """The body of the record that begins here, if it is whole."""
        if self._room(position) < 0:
            return None
        array, uint, expected, binary, length = _FRAME.unpack_from(self._data, position)
        longest = min(MAX_BODY_BYTES, self._room(position))
        if (array, uint, binary) != (_ARRAY_OF_2, _UINT32, _BIN32) or length > longest:
            return None
        start = position + _FRAME.size
        body = self._view[start : start + length]
        self._budget -= length
        return body if checksum(body, self._first) == expected else None

    def _room(self, position: int) -> int:
        """Bytes that a body could have whose frame begins here."""
        return len(self._data) - position - _FRAME.size

    def _following(self, position: int) -> int:
        """Where the next whole record after ``position`` begins, or the end of the data."""
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
        """Whether the data ends before the record that begins here does."""
        if self._room(position) < 0:
            return True
        length: int = _FRAME.unpack_from(self._data, position)[4]
        return (
            _FRAME_PATTERN.match(self._data, position) is not None and self._room(position) < length <= MAX_BODY_BYTES
        )
