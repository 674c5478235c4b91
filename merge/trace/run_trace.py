"""The timelines of all ranks of a run, one rank at a time: a run of many ranks does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from distprof.merge.analysis import Analysis
from distprof.merge.clock.offsets import JobClock
from distprof.merge.collectives.channels import group_members
from distprof.merge.collectives.job_clock import clock_of
from distprof.merge.collectives.kinds import group_kind
from distprof.merge.load.rank import RankData
from distprof.merge.report import Report
from distprof.merge.trace.meetings import Meetings
from distprof.merge.trace.model import RankTrace
from distprof.merge.trace.rank_trace import RankSource, rank_trace
from distprof.merge.trace.torch_trace import with_torch_traces
from distprof.records import AXES, CollectiveWindow, Record
from distprof.run_folder import RunFolder

#: Returns the records of a rank's shard, of which the analysis keeps sums only.
ReadRecords = Callable[[RankData], Sequence[Record]]


def run_trace(analysis: Analysis, report: Report, read: ReadRecords, run: RunFolder) -> Iterator[RankTrace]:
    """Yields the timelines of all recorded ranks, on the clock of one host.

    Reads each shard twice: a collective is drawn up to the moment at which its last member comes.  ``run`` may
    have traces of torch.profiler.
    """
    clock, meetings = clock_of(analysis), Meetings(analysis.run.world_size)
    for data in analysis.ranks:
        meetings.add(data.rank, read(data), clock.of(data.rank))
    for trace in _ranks(analysis, report, clock, meetings, read):
        yield with_torch_traces(trace, run.traces_of(trace.rank), clock.of(trace.rank))


def _ranks(
    analysis: Analysis, report: Report, clock: JobClock, meetings: Meetings, read: ReadRecords
) -> Iterator[RankTrace]:
    axes = [axis for axis in AXES if report.topology.sizes.get(axis, 1) > 1]
    places = {row.rank: {axis: row.coordinates[axis] for axis in axes} for row in report.ranks}
    for data in analysis.ranks:
        records = read(data)
        source = RankSource(
            data.rank, data.header.host, places.get(data.rank, {}), data.plans, data.tree, clock.of(data.rank), records
        )
        yield rank_trace(source, meetings, _group_titles(analysis, records))


def _group_titles(analysis: Analysis, records: Sequence[Record]) -> dict[str, str]:
    """Returns what groups are for, by torch's names for them, which are numbers mostly."""
    world_size = analysis.run.world_size
    windows = [record for record in records if isinstance(record, CollectiveWindow)]
    return {
        name: group_kind(analysis.layout, members, world_size, name)
        for window in windows
        for name, members in group_members(window, world_size).items()
    }
