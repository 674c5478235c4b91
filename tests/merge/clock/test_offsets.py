"""Moments of all ranks on one clock: never further from the truth than the bound, for clocks that run evenly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.hosts.clocks import SkewedClock

from distprof.merge.clock.offsets import LARGEST_DRIFT, HostClock, job_clock
from distprof.records import ClockOffset, Header

SECOND = 1_000_000_000
MIXED = 5 * SECOND  # where the clocks of these tests begin to drift

moments = st.integers(6 * SECOND, 4000 * SECOND)
errors = st.integers(-30_000, 30_000)
points = st.lists(st.tuples(moments, errors, st.integers(0, 5_000)), min_size=1, max_size=4, unique_by=lambda p: p[0])


def measured(clock: SkewedClock, true_ns: int, error_ns: int, slack_ns: int) -> ClockOffset:
    """A measurement of the true clock by a host with ``clock``, wrong by no more than it says."""
    own = clock.of(true_ns)
    return ClockOffset("a", own, clock.truth(own) - own + error_ns, abs(error_ns) + slack_ns, 100)


@given(points, moments, st.integers(-30 * SECOND, 30 * SECOND), st.floats(-LARGEST_DRIFT * 0.99, LARGEST_DRIFT * 0.99))
def test_the_truth_lies_within_the_bound(
    found: list[tuple[int, int, int]], true_ns: int, shift_ns: int, drift: float
) -> None:
    clock = SkewedClock(shift_ns, drift, MIXED)
    host = HostClock(tuple(measured(clock, *point) for point in sorted(found)))
    shown = clock.of(true_ns)
    offset = host.offset(shown)
    assert abs(shown + offset.offset_ns - true_ns) <= offset.bound_ns + 2  # the test's own clock rounds


def test_between_two_measurements_the_offset_is_linear_and_the_bound_is_theirs() -> None:
    ends = ClockOffset("a", 0, 100, 10, 100), ClockOffset("a", 10_000, 300, 30, 100)
    host = HostClock(ends)
    assert [host.offset(at).offset_ns for at in (0, 2_500, 5_000, 10_000)] == [100, 150, 200, 300]
    assert [host.offset(at).bound_ns for at in (2_500, 5_000)] == [16, 21]
    assert host.drift == (0.02, 0.004)


def test_beyond_one_measurement_the_bound_grows_with_the_drift_that_clocks_may_have() -> None:
    host = HostClock((ClockOffset("a", 5 * SECOND, 100, 10, 100),))
    assert host.offset(5 * SECOND).bound_ns == 11
    assert host.offset(6 * SECOND).bound_ns == 200_011
    assert host.offset(4 * SECOND).bound_ns == 200_011
    assert host.drift is None


def header(rank: int, domain: str, wall_ns: int, mono_ns: int) -> Header:
    return Header("r", rank, 4, host=f"node-{domain}", wall_ns=wall_ns, mono_ns=mono_ns, clock_domain=domain)


def test_all_ranks_stand_on_the_wall_clock_of_the_reference() -> None:
    offset = ClockOffset("a", 700, 300, 5, 100)
    clock = job_clock(
        [
            (header(3, "b", 9_000, 700), [offset]),
            (header(2, "b", 9_100, 800), []),
            (header(1, "a", 5_010, 1_010), []),
            (header(0, "a", 5_000, 1_000), []),
        ]
    )
    assert clock.reference == "a"
    assert [clock.of(rank).moment(mono) for rank, mono in ((0, 1_000), (1, 1_010), (3, 700), (2, 800))] == [
        5_000,
        5_010,
        5_000,
        5_100,
    ]
    assert clock.of(0).bound_ns(1_000) == 0
    assert clock.of(2).bound_ns(700) == 6
    assert clock.unmeasured == ()
    assert clock.ranks == {"a": (0, 1), "b": (2, 3)}


def test_a_host_that_was_not_measured_keeps_its_own_wall_clock_and_has_no_bound() -> None:
    stranger = ClockOffset("somebody else", 700, 300, 5, 100)
    clock = job_clock([(header(0, "a", 5_000, 1_000), []), (header(1, "b", 9_000, 700), [stranger])])
    assert clock.unmeasured == ("b",)
    assert clock.of(1).moment(710) == 9_010
    assert clock.of(1).bound_ns(710) is None


def test_the_reference_is_the_host_that_was_measured_against_not_the_lowest_rank() -> None:
    offset = ClockOffset("b", 1_000, 7, 1, 100)
    clock = job_clock([(header(0, "a", 5_000, 1_000), [offset]), (header(1, "b", 9_000, 700), [])])
    assert clock.reference == "b"
    assert clock.of(0).moment(1_000) == 9_000 + 1_007 - 700


def test_ranks_without_a_domain_share_the_clocks_of_their_host() -> None:
    old = [Header("r", rank, 2, host="n", wall_ns=10 + rank, mono_ns=rank) for rank in range(2)]
    clock = job_clock([(one, []) for one in old])
    assert clock.unmeasured == ()
    assert clock.of(1).bound_ns(5) == 0
