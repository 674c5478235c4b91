"""A block of a page: a few values that one writer keeps up to date, and any process reads without a lock.

A block has two copies.  The writer overwrites the older one, so that the newer one stays whole, also when the writer is
killed while it writes.  A copy is its number (from 1), the values, and the CRC-32 of both: a copy that a reader got
while it was written has a checksum that does not match, whatever the order in which a processor makes stores visible.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

_CHECKSUM_BYTES = 4
#: A block begins in a cache line of its own, so that writers do not disturb each other.
_ALIGNMENT = 64
#: How often a reader tries: only a writer that runs in between both times makes a second attempt necessary.
_TRIES = 4


class Layout(NamedTuple):
    """The place of a block in its slot, and the format of one copy."""

    offset: int
    format: struct.Struct  # the number of the copy, then the values

    @property
    def copy_bytes(self) -> int:
        return _aligned(self.format.size + _CHECKSUM_BYTES)

    def starts(self, slot: int) -> tuple[int, int]:
        """Returns the offsets of both copies in the page; ``slot`` is that of the slot."""
        first = slot + self.offset
        return first, first + self.copy_bytes

    @property
    def end(self) -> int:
        """The offset after both copies."""
        return self.offset + 2 * self.copy_bytes


def layout(offset: int, values: str) -> Layout:
    """Returns the layout of a block at or after ``offset``; ``values`` is a format of :mod:`struct`, without order."""
    return Layout(_aligned(offset), struct.Struct(f"<Q{values}"))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


class BlockWriter:
    """Writes one block; nothing else may write it.  A write makes no system call and takes no lock."""

    def __init__(self, page: memoryview, slot: int, block: Layout) -> None:
        """``slot`` is the offset of the block's slot in the page."""
        self._page = page
        self._pack = block.format.pack
        self._length = block.format.size + _CHECKSUM_BYTES
        self._offsets = block.starts(slot)
        self._number = _newest(page, self._offsets, block.format)[0]  # of an earlier owner of the slot

    def write(self, *values: Any) -> None:
        self._number = number = self._number + 1
        body = self._pack(number, *values)
        start = self._offsets[number & 1]
        self._page[start : start + self._length] = body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


class BlockReader(Generic[T]):
    """Reads one block again and again.  What has not changed since the last time is not read again: it costs the
    comparison of its number.
    """

    def __init__(self, page: memoryview, slot: int, block: Layout, parse: Callable[[Sequence[Any]], T]) -> None:
        """``slot`` is the offset of the block's slot in the page; ``parse`` makes of the values what is returned."""
        self._page, self._starts, self._format = page, block.starts(slot), block.format
        self._parse = parse
        first, second = (page[start : start + 8].cast("Q") for start in self._starts)
        self._numbers = first, second
        self._number = 0
        self._found: T | None = None

    def read(self) -> T | None:
        """Returns the newest values; None if there are none, or if no copy is whole."""
        one, other = self._numbers
        if self._number and (one[0] if one[0] > other[0] else other[0]) == self._number:
            return self._found
        for _ in range(_TRIES):
            number, values = _newest(self._page, self._starts, self._format)
            if number:
                if number != self._number:
                    self._number, self._found = number, self._parse(values)
                return self._found
        return None


def read_block(page: memoryview, slot: int, block: Layout) -> Sequence[Any] | None:
    """Returns the newest values of a block; None if there are none, or if no copy is whole."""
    return BlockReader(page, slot, block, tuple).read()


def _newest(page: memoryview, starts: tuple[int, int], form: struct.Struct) -> tuple[int, Sequence[Any]]:
    """Returns number and values of the newer of the whole copies; (0, ()) without one.  A daemon calls it often."""
    newer, older = starts
    if int.from_bytes(page[newer : newer + 8], "little") < int.from_bytes(page[older : older + 8], "little"):
        newer, older = older, newer
    for start in (newer, older):
        copy = page[start : start + form.size + _CHECKSUM_BYTES].tobytes()
        if zlib.crc32(copy[: form.size]) == int.from_bytes(copy[form.size :], "little"):
            number, *values = form.unpack_from(copy)
            if number:
                return number, values
    return 0, ()


def text_bytes(text: str, size: int) -> bytes:
    """Returns a text in UTF-8, cut to ``size`` bytes."""
    return text.encode("utf-8", "replace")[:size]


def text_of(raw: bytes) -> str:
    """Returns the text of a field, without a character that was cut."""
    return raw.rstrip(b"\0").decode("utf-8", "ignore")
