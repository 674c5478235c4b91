"""The moments of all ranks on one clock: that of the reference host.

A host's offset is linear in time between two of its measurements.  Its error there is at most the interpolated bound
of the two, and :data:`WANDER` for each ns to the nearer one, because clocks do not run quite evenly.  Beyond the
measurements the drift is that of the nearest two, if their bounds fix it better than :data:`LARGEST_DRIFT` does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property

import numpy as np

from distprof.clock import Anchor
from distprof.merge.arrays import IntArray
from distprof.plain import dataclass
from distprof.records import ClockOffset, Header

#: Two quartz oscillators of at most 100 ppm each.
LARGEST_DRIFT = 200e-6
#: How much the drift of a quartz oscillator changes within minutes to hours (Allan deviation; RFC 5905, appendix A).
WANDER = 0.1e-6


@dataclass(frozen=True)
class Offset:
    """The reference's clock minus the own one, with the largest error, in ns."""

    offset_ns: int
    bound_ns: int


@dataclass(frozen=True)
class HostClock:
    """The measurements of one host, in the order of their times; empty for the reference."""

    measured: tuple[ClockOffset, ...] = ()

    def offset(self, mono_ns: int) -> Offset:
        """Returns the offset at a time of the host's monotonic clock."""
        if not self.measured:
            return Offset(0, 0)
        after = bisect_right([point.mono_ns for point in self.measured], mono_ns)
        if 0 < after < len(self.measured):
            return _between(self.measured[after - 1], self.measured[after], mono_ns)
        return _beyond(self.measured[:2] if after == 0 else self.measured[:-3:-1], mono_ns)

    @property
    def drift(self) -> tuple[float, float] | None:
        """By how much the reference's clock is faster, from the first to the last measurement, and the largest error of
        this; None from one measurement.
        """
        first, last = (self.measured[0], self.measured[-1]) if self.measured else (None, None)
        if first is None or last is None or first.mono_ns == last.mono_ns:
            return None
        return _drift(first, last), (first.bound_ns + last.bound_ns) / (last.mono_ns - first.mono_ns)


def _drift(one: ClockOffset, other: ClockOffset) -> float:
    return (other.offset_ns - one.offset_ns) / (other.mono_ns - one.mono_ns)


def _between(before: ClockOffset, after: ClockOffset, mono_ns: int) -> Offset:
    passed, whole = mono_ns - before.mono_ns, after.mono_ns - before.mono_ns
    share = passed / whole
    bound = before.bound_ns * (1 - share) + after.bound_ns * share + WANDER * min(passed, whole - passed)
    return Offset(before.offset_ns + round((after.offset_ns - before.offset_ns) * share), round(bound) + 1)


def _beyond(nearest: Sequence[ClockOffset], mono_ns: int) -> Offset:
    """``nearest`` has the nearest measurement first, and the one next to it, if there is one."""
    point = nearest[0]
    away = mono_ns - point.mono_ns
    drift, uncertainty = 0.0, LARGEST_DRIFT
    if len(nearest) > 1 and (whole := abs(nearest[1].mono_ns - point.mono_ns)):
        known_to = (point.bound_ns + nearest[1].bound_ns) / whole + WANDER
        if known_to < LARGEST_DRIFT:
            drift, uncertainty = _drift(point, nearest[1]), known_to
    return Offset(point.offset_ns + round(drift * away), point.bound_ns + round(uncertainty * abs(away)) + 1)


@dataclass(frozen=True)
class RankClock:
    """Places the moments of one rank on the reference's clock."""

    own: Anchor
    host: HostClock
    reference: Anchor | None  # None: the host's offset is not known, and its own wall clock has to do
    shift_ns: int = 0  # what the collectives add to that

    def moment(self, mono_ns: int) -> int:
        """Returns a time of the rank's monotonic clock as ns since 1970 on the reference's wall clock."""
        if self.reference is None:
            return self.own.wall_of(mono_ns) + self.shift_ns
        return self.reference.wall_of(mono_ns + self.host.offset(mono_ns).offset_ns) + self.shift_ns

    def bound_ns(self, mono_ns: int) -> int | None:
        """Returns the largest error of :meth:`moment`; None where it is not known."""
        return None if self.reference is None else self.host.offset(mono_ns).bound_ns + abs(self.shift_ns)

    def mono_of(self, wall_ns: int) -> int:
        """Returns the time of the rank's monotonic clock for a wall time in its shard."""
        return self.own.mono_of(wall_ns)


def domain_of(header: Header) -> str:
    """Returns the clocks that a rank reads: ranks of one host share them."""
    return header.clock_domain or f"host {header.host}"


@dataclass(frozen=True)
class JobClock:
    """The clocks of the job's hosts."""

    reference: str  # the domain whose clock is everybody's
    anchors: dict[str, Anchor]  # by domain: of its lowest rank
    hosts: dict[str, HostClock]  # by domain: the reference and those that measured an offset to it
    domains: dict[int, str]  # by rank
    headers: dict[int, Header]  # by rank
    refused: frozenset[str] = frozenset()  # domains whose measured offsets cannot be right
    shifts_ns: Mapping[str, int] = field(default_factory=dict)  # by domain: what the collectives add to its times

    @cached_property
    def ranks(self) -> dict[str, tuple[int, ...]]:
        """The ranks of each domain, ascending."""
        found: dict[str, list[int]] = {}
        for rank, domain in self.domains.items():
            found.setdefault(domain, []).append(rank)
        return {domain: tuple(ranks) for domain, ranks in found.items()}

    def host_name(self, domain: str) -> str:
        return self.headers[self.ranks[domain][0]].host

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The domains without a known offset to the reference."""
        return tuple(domain for domain in self.anchors if domain not in self.hosts)

    def of(self, rank: int) -> RankClock:
        """Returns the clock of a recorded rank."""
        domain, header = self.domains[rank], self.headers[rank]
        known = self.hosts.get(domain)
        own = Anchor(header.wall_ns, header.mono_ns)
        reference = self.anchors[self.reference] if known is not None else None
        return RankClock(own, known or HostClock(), reference, self.shifts_ns.get(domain, 0))

    def numbers(self, ranks: Iterable[int]) -> IntArray:
        """Returns by rank the number of its host, from 0 in the order of :attr:`anchors`."""
        of_domain = {domain: number for number, domain in enumerate(self.anchors)}
        return np.array([of_domain[self.domains[rank]] for rank in ranks], np.int64)

    def without(self, domains: frozenset[str]) -> JobClock:
        """Returns these clocks with the offsets of some hosts refused."""
        kept = {domain: host for domain, host in self.hosts.items() if domain not in domains}
        return replace(self, hosts=kept, refused=domains)


def job_clock(ranks: Sequence[tuple[Header, Sequence[ClockOffset]]]) -> JobClock:
    """Returns the clocks of the recorded ``ranks``, of which there is at least one."""
    ordered = sorted(ranks, key=lambda rank: rank[0].rank)
    anchors: dict[str, Anchor] = {}
    measured: dict[str, list[ClockOffset]] = {}
    for header, offsets in ordered:
        domain = domain_of(header)
        anchors.setdefault(domain, Anchor(header.wall_ns, header.mono_ns))
        measured.setdefault(domain, []).extend(offsets)
    reference = _reference(list(anchors), [offset for found in measured.values() for offset in found])
    hosts = {reference: HostClock()}
    for domain, offsets in measured.items():
        used = {offset.mono_ns: offset for offset in offsets if offset.reference == reference}
        if used and domain != reference:
            hosts[domain] = HostClock(tuple(used[mono_ns] for mono_ns in sorted(used)))
    headers = {header.rank: header for header, _ in ordered}
    return JobClock(reference, anchors, hosts, {rank: domain_of(header) for rank, header in headers.items()}, headers)


def _reference(domains: Sequence[str], offsets: Sequence[ClockOffset]) -> str:
    """Returns the host against which most was measured, among those that are there; without any, that of the lowest
    rank.
    """
    named = [offset.reference for offset in offsets if offset.reference in domains]
    return max(sorted(set(named)), key=named.count, default=domains[0])
