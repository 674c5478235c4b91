"""Messages on the daemon's local socket: a length of four bytes, and a map in msgpack.  Sizes are bounded."""

from __future__ import annotations

import struct
from typing import Any

import msgpack

_LENGTH = struct.Struct("<I")
#: Requests are small; a status has some hundred bytes for each rank.
MAX_REQUEST_BYTES = 1 << 12
MAX_REPLY_BYTES = 1 << 24
LENGTH_BYTES = _LENGTH.size
_MAX_ITEMS = 1 << 16


class BadMessage(ValueError):
    """What a peer sent is no message."""


def frame(message: dict[str, Any]) -> bytes:
    """Returns a message as bytes."""
    return framed(pack(message))


def framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def pack(message: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


def body_length(head: bytes, most: int) -> int:
    """Returns the length that the first bytes announce.  Raises BadMessage if it is above ``most``."""
    (length,) = _LENGTH.unpack(head)
    if length > most:
        raise BadMessage(f"a message of {length} bytes: {most} is the limit")
    return int(length)


def unpack(body: bytes) -> dict[str, Any]:
    """Returns the map in ``body``.  Raises BadMessage for anything else."""
    limit = min(len(body), _MAX_ITEMS)
    try:
        message = msgpack.unpackb(
            body,
            max_str_len=len(body),
            max_bin_len=0,
            max_array_len=limit,
            max_map_len=limit,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises several kinds, for data of any kind
        raise BadMessage(f"no msgpack: {type(error).__name__}") from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise BadMessage("no map of names")
    return message
