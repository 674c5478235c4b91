"""Forges records: any value in any place, with valid checksums."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgpack

from distprof.records import COMPRESSED
from distprof.shard.frames import checksum, frame, scan
from soak.damage import Abuse
from soak.originals import Original, Random

NASTY: tuple[Callable[[Random], Any], ...] = (
    lambda rng: rng.choice(
        (None, True, -1, 0, 1, 1 << 20, (1 << 20) + 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    ),
    lambda rng: rng.choice((-(1 << 63), float("nan"), float("inf"), 0.5, "", "x" * 300, b"", b"\0" * 7, b"\xff" * 16)),
    lambda rng: rng.choice(
        ([], {}, [[]], {"name": {}}, [None] * 20, {"": ""}, msgpack.Timestamp(1), msgpack.ExtType(5, b"x"))
    ),
    lambda rng: _nested(rng.choice((3, 100, 300))),
)


def _nested(depth: int) -> Any:
    value: Any = []
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def forge(rng: Random, one: Original, _: Original) -> bytes:
    """Replaces some values of some records by values of another type, size or depth."""
    values = [_opened(body) for body in scan(one.data).bodies]
    for _count in range(rng.choice((1, 1, 2, 5))):
        value: Any = rng.choice(values)
        while True:
            place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
            inner = value[place]
            if not isinstance(inner, (list, dict)) or not inner or rng.random() < 0.2:
                break
            value = inner
        value[place] = rng.choice(NASTY)(rng)
    return _sealed([_closed(value) for value in values])


def _opened(body: bytes) -> list[Any]:
    """Returns the items of a body, with its payload inflated."""
    kind, sequence, payload = msgpack.unpackb(body, strict_map_key=False)
    if kind in COMPRESSED:
        payload = msgpack.unpackb(zlib.decompress(payload), strict_map_key=False)
    return [kind, sequence, payload]


def _closed(value: list[Any]) -> bytes:
    kind, sequence, payload = value
    known = isinstance(kind, str) and kind in COMPRESSED
    packed: bytes = msgpack.packb([kind, sequence, zlib.compress(msgpack.packb(payload)) if known else payload])
    return packed


def forge_bytes(rng: Random, one: Original, _: Original) -> bytes:
    """Replaces some bytes of one record: wrong lengths, invalid text, invalid msgpack."""
    bodies = scan(one.data).bodies
    index = rng.randrange(len(bodies))
    body = bytearray(bodies[index])
    for _count in range(rng.choice((1, 1, 3))):
        start = rng.randrange(len(body))
        body[start : start + 1] = rng.choice(
            (rng.randbytes(1), b"", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc1")
        )
        body = body or bytearray(1)
    bodies[index] = bytes(body)
    return _sealed(bodies)


def forge_numbers(rng: Random, one: Original, _: Original) -> bytes:
    """Replaces sequence numbers by any numbers."""
    values = [msgpack.unpackb(body) for body in scan(one.data).bodies]
    for value in rng.sample(values, 3):
        value[1] = rng.choice((0, 1, 5, 1 << 40, (1 << 63) - 1, 1 << 63, -1))
    return _sealed([msgpack.packb(value) for value in values])


def _sealed(bodies: list[bytes]) -> bytes:
    first = checksum(bodies[0])
    return b"".join(frame(body, checksum(body, first) if number else first) for number, body in enumerate(bodies))


FORGERIES: tuple[Abuse, ...] = (forge, forge_bytes, forge_numbers)
