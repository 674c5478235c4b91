"""The payloads that a shard holds compressed: descriptions that are written once, and repeat names and numbers.

The model, its parameters and the work of its modules take a twentieth of their length.  Records of steps stay as they
are, because compressing them takes time in each step.
"""

from __future__ import annotations

import zlib

from distprof.shard.codec import RecordError
from distprof.shard.frames import MAX_BODY_BYTES

_LEVEL = 6
#: A shard holds at most this many times its length in compressed payloads, and :data:`MAX_BODY_BYTES`.
_MOST_TIMES = 64


def compress(payload: bytes) -> bytes:
    """Returns a payload as a zlib stream.  Raises ValueError if it is too long for readers."""
    if len(payload) > MAX_BODY_BYTES:
        raise ValueError(f"a record of {len(payload)} bytes is too long for a shard: {MAX_BODY_BYTES} is the limit")
    return zlib.compress(payload, _LEVEL)


class Inflater:
    """Returns what the payloads of one shard hold, in proportion to the length of the shard."""

    def __init__(self, shard_bytes: int) -> None:
        self._left = MAX_BODY_BYTES + _MOST_TIMES * shard_bytes

    def inflate(self, kind: str, stream: object) -> bytes:
        """Returns the payload of a record of a kind that is compressed.  Raises RecordError unless ``stream`` is one
        whole zlib stream of bounded length.
        """
        if type(stream) is not bytes:
            raise RecordError(f"{kind}: expected compressed bytes, found {type(stream).__name__}")
        most = min(MAX_BODY_BYTES, self._left)
        inflating = zlib.decompressobj()
        try:
            payload = inflating.decompress(stream, most + 1)
        except zlib.error:
            raise RecordError(f"{kind}: its compressed payload is damaged") from None
        self._left -= len(payload)
        if len(payload) > most or not inflating.eof or inflating.unused_data:
            raise RecordError(f"{kind}: its compressed payload is too long, or not whole")
        return payload
