"""The clock of the job, and the collectives of all ranks on it.

Where hosts were compared exactly enough, it is the measured one.  Where they were not, the collectives themselves say
by how much the clocks of hosts differ.
"""

from __future__ import annotations

from dataclasses import replace

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.clock.measured_clock import measured_clock, measured_section
from distprof.merge.clock.offsets import JobClock
from distprof.merge.collectives.activity import training_activity
from distprof.merge.collectives.host_shifts import WrongClocksError, host_shifts
from distprof.merge.collectives.join import JoinedEntries, join_entries
from distprof.merge.report import Clocks
from distprof.plain import dataclass

#: With a smaller error, waits are told from work as on one host.
EXACT_NS = 200_000


#: Why what was measured of clocks is not right, after "what was measured of the clocks is wrong: ".
LEFT_TOO_EARLY = "ranks would leave collectives before their last member came"


@dataclass(frozen=True, eq=False)
class _Corrected:
    """The clock, as collectives correct it."""

    clock: JobClock
    error_ns: int  # that is likely between two hosts
    bound_ns: int | None = None  # the largest error, where it was corrected and this is known
    refused: bool = False  # collectives contradict what was measured


@computed_once
def clock_of(analysis: Analysis) -> JobClock:
    """Returns the clock on which moments of all ranks can be compared."""
    return _corrected(analysis).clock


@computed_once
def clock_section(analysis: Analysis) -> Clocks:
    """Returns how exactly times of different hosts compare: as measured, and after collectives have corrected them."""
    corrected, measured = _corrected(analysis), measured_section(analysis)
    clock = corrected.clock
    if corrected.refused:
        unknown = f"what was measured of the clocks is wrong: {LEFT_TOO_EARLY}"
        rows = tuple(row if row.host == measured.reference else replace(row, bound_ns=None) for row in measured.hosts)
        measured = replace(measured, hosts=rows, bound_ns=None, unknown=unknown)
    if not clock.shifts_ns:
        return measured
    domains = sorted(clock.anchors, key=lambda domain: domain != clock.reference)
    shifted = (
        replace(row, shift_ns=clock.shifts_ns[domain]) for row, domain in zip(measured.hosts, domains, strict=True)
    )
    return replace(measured, hosts=tuple(shifted), shifted=True, shift_error_ns=corrected.bound_ns)


@computed_once
def joined_entries(analysis: Analysis) -> JoinedEntries | None:
    """Returns the joined entries of all ranks; None where no rank recorded any."""
    corrected = _corrected(analysis)
    return join_entries(analysis, corrected.clock, corrected.error_ns)


@computed_once
def _corrected(analysis: Analysis) -> _Corrected:
    clock = measured_clock(analysis)
    error_ns = measured_section(analysis).bound_ns
    if error_ns is not None and error_ns <= EXACT_NS:
        return _Corrected(clock, 0)
    try:
        return _shifted_clock(analysis, clock, error_ns)
    except WrongClocksError:
        unmeasured = clock.without(frozenset(clock.hosts) - {clock.reference})
    try:
        return replace(_shifted_clock(analysis, unmeasured, None), refused=error_ns is not None)
    except WrongClocksError:
        return _Corrected(unmeasured, 0, refused=error_ns is not None)


def _shifted_clock(analysis: Analysis, clock: JobClock, error_ns: int | None) -> _Corrected:
    """Returns a clock that is wrong by ``error_ns`` at most, as collectives correct it, if they tell more."""
    entries = join_entries(analysis, clock)
    if entries is None or not len(entries):
        return _Corrected(clock, error_ns or 0)
    activity = training_activity(analysis, entries, clock)
    origin = list(clock.anchors).index(clock.reference)
    shifts = host_shifts(activity, clock.numbers(entries.ranks), error_ns, origin)
    if shifts is None or (error_ns is not None and shifts.error_ns >= error_ns):
        return _Corrected(clock, error_ns or 0)
    if shifts.bound_ns is None and not shifts.shift_ns.any():
        return _Corrected(clock, shifts.error_ns)
    shifted = dict(zip(clock.anchors, shifts.shift_ns.tolist(), strict=True))
    return _Corrected(replace(clock, shifts_ns=shifted), shifts.error_ns, shifts.bound_ns)
