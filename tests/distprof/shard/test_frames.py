"""Tests of frames: their layout, and the search for whole frames in damaged data."""

from __future__ import annotations

import struct
import zlib

import msgpack
import pytest
from support.shards import DATA, RECORDS

from distprof.shard import frames
from distprof.shard.frames import MAX_BODY_BYTES, checksum, frame, scan


def test_a_frame_has_one_spelling() -> None:
    framed = frame(b"body", 0x01020304)
    assert framed == b"\x92\xce\x01\x02\x03\x04\xc6\x00\x00\x00\x04body"
    assert msgpack.unpackb(framed) == [0x01020304, b"body"]


def test_all_checksums_but_the_first_cover_the_first_body_too() -> None:
    first = checksum(b"first")
    assert first == zlib.crc32(b"first")
    assert checksum(b"second", first) == zlib.crc32(b"firstsecond")


def test_a_first_body_whose_checksum_is_zero_is_no_exception() -> None:
    """Zero is also the initial checksum of the first record."""
    zero = b"\x9d\x0a\xd9\x6d"
    assert checksum(zero) == 0
    assert scan(frame(zero, 0) + frame(b"second", checksum(b"second", 0))).bodies == [zero, b"second"]


def test_longest_body_is_read_and_a_longer_one_is_damage() -> None:
    longest = bytes(MAX_BODY_BYTES)
    framed = frame(longest, checksum(longest))
    assert scan(framed).bodies == [longest]
    with pytest.raises(ValueError, match=f"{MAX_BODY_BYTES} is the limit"):
        frame(longest + b"x", 0)
    longer = struct.pack(">BBIBI", 0x92, 0xCE, checksum(longest + b"x"), 0xC6, len(longest) + 1) + longest + b"x"
    assert scan(longer).bodies == []
    assert scan(longer).why == "a record is damaged"


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (b"\x92", "the last record is torn"),
        (b"\x92\xce\0\0\0\0\xc6\0\0\0\x05body", "the last record is torn"),
        (b"\x92\xce\0\0\0\0\xc6\0\0\0\x04body", "a record is damaged"),
        (bytes(4096), "a record is damaged"),  # a file system reads blocks that never reached the disk as zeros
    ],
)
def test_a_torn_end_is_told_from_damage(tail: bytes, why: str) -> None:
    found = scan(DATA + tail)
    assert (len(found.bodies), found.unread_bytes, found.why) == (len(RECORDS), len(tail), why)


def frames_that_lie(length: int, size: int) -> bytes:
    """Returns as many frames as possible, each of which claims ``length`` existing bytes; no checksum is valid."""
    return struct.pack(">BBIBI", 0x92, 0xCE, 0xDEADBEEF, 0xC6, length) * (size // 11)


@pytest.mark.parametrize("length", [0, 11, 1000, 1 << 19])
def test_searching_damage_costs_in_proportion_to_the_file(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def counting(body: bytes, first: int = 0) -> int:
        looked_at.append(len(body))
        return checksum(body, first)

    monkeypatch.setattr(frames, "checksum", counting)
    data = DATA + frames_that_lie(length, 1 << 20)
    found = scan(data)
    assert sum(looked_at) < 10 * len(data)  # all of them, in full: 50 GB of checksums in the last case
    assert len(looked_at) < len(data) / 10
    assert found.unread_bytes == len(data) - len(DATA)
    assert found.gave_up == (length >= 1000)


def test_a_search_that_was_given_up_says_so() -> None:
    data = DATA + frames_that_lie(1 << 19, 1 << 20) + DATA
    assert scan(data).why == "a record is damaged, and the search for more was given up"
