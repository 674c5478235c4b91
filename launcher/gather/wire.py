"""What a node that sends shards and the first node tell each other, and the keys under which they do.

    nodes       how many launchers have come        folder     a token that lies in the first node's run folder, too
    offers      how many offers were written        progress   how many chunks the first node has taken
    offer/N     the shards that node N has          ask/N      the bytes of them that the first node wants next
    chunk/N     these bytes                         done/N     the offer that was taken whole, with checksums

The first node asks one node at a time, for at most one chunk: no more than that lies in the store.  Everything is data
from elsewhere: sizes are bounded, and no text in it becomes a part of a path.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distprof.launcher.daemon.messages import BadMessage, pack, unpack
from distprof.shard.frames import MAX_SHARD_BYTES

CHUNK_BYTES = 1 << 20
#: The shards of a node: ranks times generations.
MAX_FILES = 4096
MAX_MESSAGE_BYTES = 1 << 18
_MOST_RANKS, _MOST_GENERATIONS = 1 << 20, 10_000
_MAX_TEXT = 300
_HEAD = struct.Struct("<QI")  # number of the ask, checksum

#: (rank, generation) of a shard.
ShardId = tuple[int, int]


@dataclass(frozen=True)
class Offer:
    """The shards of a node with their sizes in bytes.

    ``final``: its job has ended.  ``again``: those to send anew.  ``shares_folder``: they are in the first node's run
    folder already, and ``sizes`` is empty.
    """

    number: int
    final: bool
    host: str
    launch: str
    sizes: Mapping[ShardId, int]
    again: frozenset[ShardId] = frozenset()
    shares_folder: bool = False

    def packed(self) -> bytes:
        sizes = [[*shard, size] for shard, size in self.sizes.items()]
        again = [list(shard) for shard in sorted(self.again)]
        names = {"number": self.number, "host": self.host, "launch": self.launch}
        kind = {"final": self.final, "shares_folder": self.shares_folder}
        return pack({**names, **kind, "sizes": sizes, "again": again})


@dataclass(frozen=True)
class Part:
    """Some bytes of a shard."""

    shard: ShardId
    offset: int
    length: int


@dataclass(frozen=True)
class Ask:
    """The parts that the first node wants next, one chunk at most."""

    number: int
    parts: tuple[Part, ...]

    def packed(self) -> bytes:
        return pack({"number": self.number, "parts": [[*part.shard, part.offset, part.length] for part in self.parts]})


@dataclass(frozen=True)
class Done:
    """The number of the offer that was taken, and the CRC-32 of each shard as it was taken."""

    number: int
    checksums: Mapping[ShardId, int]

    def packed(self) -> bytes:
        return pack({"number": self.number, "checksums": [[*shard, crc] for shard, crc in self.checksums.items()]})


def read_offer(value: bytes) -> Offer:
    """Raises BadMessage for anything else."""
    message = _unpacked(value)
    host, launch = message.get("host"), message.get("launch")
    final, shares_folder = message.get("final"), message.get("shares_folder")
    if not isinstance(host, str) or not isinstance(launch, str) or len(host) > _MAX_TEXT or len(launch) > _MAX_TEXT:
        raise BadMessage("an offer needs two texts")
    if type(final) is not bool or type(shares_folder) is not bool:
        raise BadMessage("an offer is final or not, and in a shared folder or not")
    sizes = {_shard(row): _natural(row[2], MAX_SHARD_BYTES) for row in _rows(message.get("sizes"), 3)}
    again = frozenset(_shard(row) for row in _rows(message.get("again"), 2))
    return Offer(_natural(message.get("number")), final, host, launch, sizes, again, shares_folder)


def read_ask(value: bytes) -> Ask:
    """Raises BadMessage for anything else."""
    message = _unpacked(value)
    rows = _rows(message.get("parts"), 4)
    parts = tuple(
        Part(_shard(row), _natural(row[2], MAX_SHARD_BYTES), _natural(row[3], CHUNK_BYTES))
        for row in rows
    )  # fmt: skip
    if sum(part.length for part in parts) > CHUNK_BYTES:
        raise BadMessage("more than a chunk is asked for")
    return Ask(_natural(message.get("number")), parts)


def read_done(value: bytes) -> Done:
    """Raises BadMessage for anything else."""
    message = _unpacked(value)
    rows = _rows(message.get("checksums"), 3)
    return Done(_natural(message.get("number")), {_shard(row): _natural(row[2]) for row in rows})


def packed_chunk(number: int, data: bytes) -> bytes:
    return _HEAD.pack(number, zlib.crc32(data)) + data


def read_chunk(value: bytes, ask: Ask) -> bytes | None:
    """Returns the bytes that were asked for; None for the answer to an earlier ask.

    Raises BadMessage for other bytes, and for fewer or more than were asked for.
    """
    if len(value) < _HEAD.size:
        raise BadMessage("a chunk without its head")
    number, checksum = _HEAD.unpack_from(value)
    if number != ask.number:
        return None
    data = value[_HEAD.size :]
    if len(data) != sum(part.length for part in ask.parts):
        raise BadMessage("a chunk of another length")
    if zlib.crc32(data) != checksum:
        raise BadMessage("a chunk with another checksum")
    return data


def _unpacked(value: bytes) -> dict[str, Any]:
    if len(value) > MAX_MESSAGE_BYTES:
        raise BadMessage("a message that is too long")
    return unpack(value)


def _rows(rows: object, width: int) -> list[list[Any]]:
    if not isinstance(rows, list) or len(rows) > MAX_FILES:
        raise BadMessage("no list of shards")
    if not all(isinstance(row, list) and len(row) == width for row in rows):
        raise BadMessage("a shard of another form")
    return rows


def _shard(row: list[Any]) -> ShardId:
    return _natural(row[0], _MOST_RANKS), _natural(row[1], _MOST_GENERATIONS)


def _natural(value: object, most: int = (1 << 63) - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadMessage("a number that cannot be")
    return value
