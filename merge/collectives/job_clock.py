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
from distprof.merge.collectives.host_shifts import host_shifts
from distprof.merge.collectives.join import JoinedEntries, join_entries
from distprof.merge.report import Clocks

#: With a smaller error, waits are told from work as on one host.
EXACT_NS = 200_000


@computed_once
def clock_of(analysis: Analysis) -> JobClock:
    """Returns the clock on which moments of all ranks can be compared."""
    return _clock_and_error(analysis)[0]


@computed_once
def clock_section(analysis: Analysis) -> Clocks:
    """Returns how exactly times of different hosts compare: as measured, and after collectives have corrected them."""
    clock, error_ns = _clock_and_error(analysis)
    measured = measured_section(analysis)
    if not clock.shifts_ns:
        return measured
    domains = sorted(clock.anchors, key=lambda domain: domain != clock.reference)
    shifted = (
        replace(row, shift_ns=clock.shifts_ns[domain]) for row, domain in zip(measured.hosts, domains, strict=True)
    )
    return replace(measured, hosts=tuple(shifted), shift_error_ns=error_ns)


@computed_once
def joined_entries(analysis: Analysis) -> JoinedEntries | None:
    """Returns the joined entries of all ranks; None where no rank recorded any."""
    return join_entries(analysis, *_clock_and_error(analysis))


@computed_once
def _clock_and_error(analysis: Analysis) -> tuple[JobClock, int]:
    clock = measured_clock(analysis)
    error_ns = measured_section(analysis).bound_ns
    if error_ns is not None and error_ns <= EXACT_NS:
        return clock, 0
    entries = join_entries(analysis, clock)
    if entries is None or not len(entries):
        return clock, error_ns or 0
    activity = training_activity(analysis, entries, clock)
    shifts = host_shifts(activity, clock.numbers(entries.ranks), error_ns)
    if shifts is None or (error_ns is not None and shifts.error_ns >= error_ns):
        return clock, error_ns or 0
    found = dict(zip(clock.anchors, shifts.shift_ns.tolist(), strict=True))
    shifted = {domain: _within(shift_ns - found[clock.reference], error_ns) for domain, shift_ns in found.items()}
    return replace(clock, shifts_ns=shifted), shifts.error_ns


def _within(shift_ns: int, error_ns: int | None) -> int:
    """Returns a shift that is no larger than the measured clock can be wrong."""
    return shift_ns if error_ns is None else max(-error_ns, min(shift_ns, error_ns))
