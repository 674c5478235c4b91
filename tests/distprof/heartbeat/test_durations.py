"""Tests of the histogram of durations."""

from __future__ import annotations

import pytest

from distprof.heartbeat.durations import BUCKETS, bucket_of, quantile_ns, sums, upper_ns


@pytest.mark.parametrize("duration_ns", [32_768, 40_000, 1_000_000, 12_345_678, 250_000_000, 3_600_000_000_000])
def test_a_bucket_holds_its_durations_and_is_a_quarter_wide(duration_ns: int) -> None:
    bucket = bucket_of(duration_ns)
    assert upper_ns(bucket - 1) <= duration_ns < upper_ns(bucket) <= 1.25 * duration_ns + 1 or bucket == 0


def test_buckets_grow_with_durations() -> None:
    found = [bucket_of(1 << bits) for bits in range(64)]
    assert found == sorted(found) and found[0] == 0 and found[-1] == BUCKETS - 1
    assert bucket_of(0) == 0


def test_quantiles_are_those_of_the_durations() -> None:
    durations = [1_000_000 * (number + 1) for number in range(1000)]
    counts = [0] * BUCKETS
    for duration in durations:
        counts[bucket_of(duration)] += 1
    for share in (0.5, 0.99):
        exact, found = durations[int(share * 1000) - 1], quantile_ns(sums(counts), share)
        assert found is not None and exact <= found <= 1.3 * exact
    assert quantile_ns(sums([0] * BUCKETS), 0.5) is None


def test_the_longest_durations_can_be_left_out() -> None:
    counts = [0] * BUCKETS
    counts[40], counts[41], counts[100] = 98, 2, 3
    assert quantile_ns(sums(counts), 0.99) == upper_ns(100)
    assert quantile_ns(sums(counts), 0.99, longest=3) == upper_ns(41)
    assert quantile_ns(sums(counts), 0.99, longest=5) == upper_ns(40)
    assert quantile_ns(sums(counts), 0.99, longest=103) is None
