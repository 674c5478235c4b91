"""Whether shards are those of one job, and which of them are copies of others."""

from __future__ import annotations

from collections.abc import Sequence

from distprof.errors import DataError
from distprof.merge.load.rank import RankData
from distprof.merge.wording import join_words
from distprof.rank.launches import ran_apart
from distprof.records import Header


def without_copies(candidates: Sequence[RankData]) -> list[RankData]:
    """Returns one shard of each process, the longest: the first node of a job may have a part of what another node
    still has whole.
    """
    longest: dict[Header, RankData] = {}
    for data in candidates:
        before = longest.setdefault(data.header, data)
        if (data.last_ns, data.report.records) > (before.last_ns, before.report.records):
            longest[data.header] = data
    return list(longest.values())


def check_one_job(candidates: Sequence[RankData], *, given_together: bool) -> tuple[str, ...]:
    """Returns a note where shards of several runs are those of one job: a launcher may name the run on each node, and
    the user gives the folders together then.  Raises DataError for other shards of several runs.
    """
    examples: dict[str, str] = {}
    for data in candidates:
        examples.setdefault(data.header.run_id, data.source)
    if len(examples) < 2:
        return ()
    if given_together and _may_be_one_job(candidates):
        return (f"the folders are of the runs {join_words(sorted(examples))}: reported as one job, no rank is in two",)
    (one, first), (other, second) = sorted(examples.items())[:2]
    raise DataError(
        f"shards of {len(examples)} runs are mixed here: {first} is of run {one}, {second} of run {other}; "
        "put each run's shards in a folder of their own"
    )


def _may_be_one_job(candidates: Sequence[RankData]) -> bool:
    """Whether shards of several runs have no rank in common, the same world size, and ran at the same time."""
    ranks = {(data.header.run_id, data.rank) for data in candidates}
    worlds = {data.header.world_size for data in candidates}
    at_once = ran_apart(candidates, lambda data: (data.header, data.last_ns)) is None
    return len({rank for _, rank in ranks}) == len(ranks) and len(worlds) == 1 and at_once
