"""A histogram of durations with fixed buckets, four for each power of two: each is at most 25 % wide."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

BUCKETS = 128
_SMALLEST_BITS = 15  # the first buckets begin at 32 us; shorter durations are counted there
_LAST = BUCKETS - 1


def bucket_of(duration_ns: int) -> int:
    """Returns the number of the bucket of a duration."""
    bits = duration_ns.bit_length() - 1
    if bits < _SMALLEST_BITS:
        return 0
    bucket = ((bits - _SMALLEST_BITS) << 2) | ((duration_ns >> (bits - 2)) & 3)
    return bucket if bucket < _LAST else _LAST


def upper_ns(bucket: int) -> int:
    """Returns the smallest duration above a bucket."""
    bits, quarter = _SMALLEST_BITS + (bucket >> 2), bucket & 3
    return (5 + quarter) << (bits - 2)


def without_longest(counts: Sequence[int], number: int) -> list[int]:
    """Returns the counts without those of the ``number`` longest durations."""
    left = list(counts)
    for bucket in range(len(left) - 1, -1, -1):
        if not number:
            break
        if not left[bucket]:
            continue
        taken = min(number, left[bucket])
        left[bucket] -= taken
        number -= taken
    return left


def quantile_ns(counts: Sequence[int], share: float) -> int | None:
    """Returns a duration that ``share`` of the counted ones do not exceed, up to a bucket's width; None without any."""
    seen = list(accumulate(counts))
    if not seen or not seen[-1]:
        return None
    return upper_ns(bisect_left(seen, share * seen[-1]))
