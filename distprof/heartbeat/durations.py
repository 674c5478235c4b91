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


def sums(counts: Sequence[int]) -> list[int]:
    """Returns for each bucket how many durations are in it and in those before it."""
    return list(accumulate(counts))


def quantile_ns(sums: Sequence[int], share: float, longest: int = 0) -> int | None:
    """Returns a duration that ``share`` of the counted ones do not exceed, up to a bucket's width; None without any.

    The ``longest`` durations do not count.
    """
    number = sums[-1] - longest if sums else 0
    return upper_ns(bisect_left(sums, share * number)) if number > 0 else None
