"""The timelines of all ranks of a run, one rank at a time: a run of many ranks does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from distprof.merge.analysis import Analysis
from distprof.merge.clock.causality import contradictions, refused_hosts
from distprof.merge.clock.offsets import JobClock
from distprof.merge.clock.section import clock_of
from distprof.merge.load.rank import RankData
from distprof.merge.report import Report
from distprof.merge.trace.meetings import Meetings
from distprof.merge.trace.model import RankTrace
from distprof.merge.trace.rank_trace import RankSource, rank_trace
from distprof.merge.wording import join_words
from distprof.records import AXES, CollectiveWindow, Record

#: Returns the records of a rank's shard, of which the analysis keeps sums only.
ReadRecords = Callable[[RankData], Sequence[Record]]

_NAMELESS = ("", "undefined")


@dataclass(frozen=True)
class RunTrace:
    """The timelines, and what a reader must know of them."""

    ranks: Iterator[RankTrace]
    notes: tuple[str, ...]


def run_trace(analysis: Analysis, report: Report, read: ReadRecords) -> RunTrace:
    """Returns the timelines of all recorded ranks, on the clock of one host.

    Reads each shard twice: a collective is drawn up to the moment at which its last member comes.
    """
    clock = clock_of(analysis)
    meetings = _meetings(analysis, clock, read)
    refused = refused_hosts(contradictions(meetings.messages()), clock.reference)
    if refused:
        clock = clock.without(refused)
        meetings = _meetings(analysis, clock, read)
    return RunTrace(_ranks(analysis, report, clock, meetings, read), tuple(_notes(clock, refused)))


def _meetings(analysis: Analysis, clock: JobClock, read: ReadRecords) -> Meetings:
    meetings = Meetings()
    for data in analysis.ranks:
        meetings.add(data.rank, clock.domains[data.rank], read(data), clock.of(data.rank))
    return meetings


def _ranks(
    analysis: Analysis, report: Report, clock: JobClock, meetings: Meetings, read: ReadRecords
) -> Iterator[RankTrace]:
    axes = [axis for axis in AXES if report.topology.sizes.get(axis, 1) > 1]
    places = {row.rank: {axis: row.coordinates[axis] for axis in axes} for row in report.ranks}
    for data in analysis.ranks:
        records = read(data)
        source = RankSource(
            data.rank, data.header.host, places.get(data.rank, {}), data.tree, clock.of(data.rank), records
        )
        yield rank_trace(source, meetings, _group_titles(records))


def _group_titles(records: Sequence[Record]) -> dict[str, str]:
    """Returns what groups are called, by torch's names, which are numbers mostly."""
    groups = [group for record in records if isinstance(record, CollectiveWindow) for group in record.groups]
    return {group.name: group.description for group in groups if group.description not in _NAMELESS}


def _notes(clock: JobClock, refused: frozenset[str]) -> Iterator[str]:
    names = [clock.host_name(domain) for domain in clock.unmeasured if domain not in refused]
    if names:
        yield (
            f"the clocks of {join_words(names)} were not compared with that of {clock.host_name(clock.reference)}: "
            "their ranks are drawn on their own wall clocks"
        )
    if refused:
        wrong = join_words(sorted(clock.host_name(domain) for domain in refused))
        yield (
            f"what was measured of the clocks of {wrong} is wrong, because messages would have arrived there, or from "
            "there, before they were sent: their ranks are drawn on their own wall clocks"
        )
