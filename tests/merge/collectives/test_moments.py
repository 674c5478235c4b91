"""The moments of a rank are placed on the job's clock, whose differences are exact to the ns."""

from __future__ import annotations

import numpy as np

from distprof.clock import Anchor
from distprof.merge.clock.offsets import HostClock, RankClock
from distprof.merge.collectives.moments import on_job_clock
from distprof.records import ClockOffset

WALL_NS = 1_700_000_000_000_000_000


def test_moments_follow_the_measured_offset_and_its_drift() -> None:
    measured = (ClockOffset("ref", 0, 5_000_000, 10, 1), ClockOffset("ref", 10**10, 6_000_000, 10, 1))
    clock = RankClock(Anchor(WALL_NS, 7), HostClock(measured), Anchor(WALL_NS, 0))
    moments = np.array([0, 2_500_000_001, 10**10], np.int64)
    placed = on_job_clock(clock, moments)
    assert placed.tolist() == [clock.moment(moment) for moment in moments.tolist()]
    assert placed.tolist() == [WALL_NS + 5_000_000, WALL_NS + 2_505_250_001, WALL_NS + 10**10 + 6_000_000]


def test_a_clock_without_a_measured_offset_is_its_wall_clock() -> None:
    clock = RankClock(Anchor(WALL_NS, 7), HostClock(), None)
    assert on_job_clock(clock, np.array([7, 107], np.int64)).tolist() == [WALL_NS, WALL_NS + 100]
    assert len(on_job_clock(clock, np.zeros(0, np.int64))) == 0
