"""The clock of the job, and the report's section on it, as far as hosts were compared; collectives may correct both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.clock.causality import Interval, contradictions, refused_hosts
from distprof.merge.clock.offsets import JobClock, RankClock, job_clock
from distprof.merge.report import Clocks, HostClockRow
from distprof.merge.wording import join_words


@computed_once
def measured_clock(analysis: Analysis) -> JobClock:
    """Returns the clock on which moments of all ranks can be compared, as far as the clocks of hosts were measured."""
    clock = job_clock([(data.header, data.clock_offsets) for data in analysis.ranks])
    if len(clock.hosts) == 1:
        return clock
    return clock.without(refused_hosts(contradictions(_messages(analysis, clock)), clock.reference))


def _messages(analysis: Analysis, clock: JobClock) -> Iterator[tuple[Interval, Interval]]:
    """Yields the two ends of each message: a receive cannot complete before its send began."""
    sent: dict[tuple[object, ...], Interval] = {}
    received: dict[tuple[object, ...], Interval] = {}
    for data in analysis.ranks:
        own, host = clock.of(data.rank), clock.domains[data.rank]
        for end in data.message_ends:
            bound_ns = own.bound_ns(end.mono_ns)
            if bound_ns is not None:
                moment_ns = own.moment(end.mono_ns)
                if end.sends:
                    sent[end.message] = Interval(host, moment_ns, None, bound_ns)
                else:
                    received[end.message] = Interval(host, moment_ns, moment_ns, bound_ns)
    return ((sent[message], received[message]) for message in sent.keys() & received.keys())


@computed_once
def measured_section(analysis: Analysis) -> Clocks:
    """Returns how exactly times of different hosts compare, by what was measured."""
    clock = measured_clock(analysis)
    spans = {data.rank: data.step_span_ns for data in analysis.ranks}
    domains = sorted(clock.anchors, key=lambda domain: domain != clock.reference)
    rows = tuple(_row(clock, domain, spans) for domain in domains)
    bounds = sorted((row.bound_ns for row in rows if row.bound_ns is not None), reverse=True)
    unknown = _unknown(clock)
    return Clocks(rows[0].host, rows, bound_ns=None if unknown else sum(bounds[:2]), unknown=unknown)


def _unknown(clock: JobClock) -> str:
    if clock.refused:
        refused = join_words(sorted(clock.host_name(domain) for domain in clock.refused))
        return f"what was measured of the clocks of {refused} is wrong: messages would arrive before they were sent"
    names = [clock.host_name(domain) for domain in clock.unmeasured]
    if not names:
        return ""
    clocks = f"the clock of {names[0]} was" if len(names) == 1 else f"the clocks of {join_words(names)} were"
    return f"{clocks} not compared with that of {clock.host_name(clock.reference)}"


def _row(clock: JobClock, domain: str, spans: Mapping[int, tuple[int, ...]]) -> HostClockRow:
    ranks, name, host = clock.ranks[domain], clock.host_name(domain), clock.hosts.get(domain)
    if host is None:
        return HostClockRow(name, ranks, None, None, None, None, 0)
    if domain == clock.reference:
        return HostClockRow(name, ranks, 0, 0.0, 0.0, 0, 0)
    first, drift = host.measured[0], host.drift
    there = clock.anchors[clock.reference].wall_of(first.mono_ns + first.offset_ns)
    return HostClockRow(
        host=name,
        ranks=ranks,
        ahead_ns=clock.anchors[domain].wall_of(first.mono_ns) - there,
        drift_ppm=None if drift is None else round(-drift[0] * 1e6, 3),
        drift_bound_ppm=None if drift is None else round(drift[1] * 1e6, 3),
        bound_ns=max(_bound_ns(clock.of(rank), spans[rank]) for rank in ranks),
        measurements=len(host.measured),
    )


def _bound_ns(clock: RankClock, span_ns: tuple[int, ...]) -> int:
    """Returns the largest error of a moment of a rank's timed steps; without any, of its first moment."""
    moments = [clock.mono_of(wall_ns) for wall_ns in span_ns] or [clock.own.mono_ns]
    return max(clock.bound_ns(mono_ns) or 0 for mono_ns in moments)
