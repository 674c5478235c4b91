"""Ways to damage a shard: bytes are flipped, cut, inserted, moved, repeated or zeroed, or two runs are spliced."""

from __future__ import annotations

from collections.abc import Callable

from soak.originals import Original, Random

#: (random numbers, shard, another shard) -> the bytes of a file
Abuse = Callable[[Random, Original, Original], bytes]


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 11, 50, rng.randrange(1, len(data)))))


def flip(rng: Random, one: Original, _: Original) -> bytes:
    data = bytearray(one.data)
    for _count in range(rng.choice((1, 1, 1, 2, 10))):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def truncate(rng: Random, one: Original, _: Original) -> bytes:
    return one.data[: rng.randrange(len(one.data))]


def insert(rng: Random, one: Original, _: Original) -> bytes:
    start = rng.randrange(len(one.data) + 1)
    return one.data[:start] + rng.randbytes(rng.choice((1, 4, 11, 200))) + one.data[start:]


def delete(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    return one.data[:start] + one.data[end:]


def zero(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    return one.data[:start] + bytes(end - start) + one.data[end:]


def repeat(rng: Random, one: Original, _: Original) -> bytes:
    start, end = _span(rng, one.data)
    place = rng.randrange(len(one.data) + 1)
    return one.data[:place] + one.data[start:end] + one.data[place:]


def repeat_records(rng: Random, one: Original, _: Original) -> bytes:
    start, end = sorted(rng.choices(one.edges, k=2))
    place = rng.choice(one.edges)
    return one.data[:place] + one.data[start:end] + one.data[place:]


def swap_records(rng: Random, one: Original, _: Original) -> bytes:
    a, b, c = sorted(rng.choices(one.edges[1:], k=3))
    return one.data[:a] + one.data[b:c] + one.data[a:b] + one.data[c:]


def splice(rng: Random, one: Original, other: Original) -> bytes:
    return one.data[: rng.randrange(len(one.data) + 1)] + other.data[rng.randrange(len(other.data) + 1) :]


def splice_records(rng: Random, one: Original, other: Original) -> bytes:
    return one.data[: rng.choice(one.edges)] + other.data[rng.choice(other.edges) :]


DAMAGES: tuple[Abuse, ...] = (
    flip,
    truncate,
    insert,
    delete,
    zero,
    repeat,
    repeat_records,
    swap_records,
    splice,
    splice_records,
)
