"""The last line of a job: how many of how many ranks were recorded, why not all, and what to type next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from distprof.errors import DataError
from distprof.launcher.run_setup import Job
from distprof.rank.plans import short_run_advice, used_steps
from distprof.rank.selection import select_shards
from distprof.rank_names import rank_names
from distprof.records import ALONE, NO_MODULE, ONLY_COMPILED, Counts, End, Error, Header, Plan, Step
from distprof.run_folder import RunFolder
from distprof.shard.decoding import RecordCache
from distprof.shard.reader import Shard, last_ns, read_header, read_shard

_LEFT_NO_SHARD = (
    "left no shard: killed before the first call of a model, not able to write here (it said so), "
    "or Python did not load distprof (-I, -E or -S, or not installed)"
)
_ELSEWHERE = "; or their node does not share this folder: distprof merge takes a folder of each node"
_NOTHING_CALLED = {
    NO_MODULE: "called no module",
    ONLY_COMPILED: (
        "called no module, only compiled functions: a model in one is seen where an optimizer steps it, so call the "
        "model, or compile it instead of the function"
    ),
}
_LONGEST_MESSAGE = 120


@dataclass(frozen=True)
class RankSummary:
    """What one shard holds; ``remark`` says what it lacks of its plan, and is empty where it lacks nothing."""

    header: Header
    source: str  # the name of its file
    has_data: bool
    remark: str
    last_ns: int = 0  # when the rank is last known to have run, wall time


def read_rank_summaries(run: RunFolder, host: str = "") -> tuple[list[RankSummary], list[str]]:
    """Returns what each rank (of ``host``, if given) left, by rank, and a sentence for all that is not among it.

    The same shard speaks for a rank as in a report, and earlier jobs of the same name are left out.
    """
    summaries, unread = _read_all(run, host)
    found = select_shards(summaries)
    return found.chosen, [*_unrelated_processes(found.job, found.chosen), *unread]


def _unrelated_processes(job: list[RankSummary], chosen: list[RankSummary]) -> list[str]:
    """Returns a sentence where several processes ran without a RANK: all are rank 0, and one of them is reported."""
    alone = [summary.header for summary in job if summary.has_data and summary.header.claim == ALONE]
    if len({header.pid for header in alone}) < 2 or any(summary.header.claim != ALONE for summary in chosen):
        return []
    return [f"{len(alone)} processes ran models and none was told its RANK: merging reports the last that began"]


def _read_all(run: RunFolder, host: str) -> tuple[list[RankSummary], list[str]]:
    summaries: list[RankSummary] = []
    unread: list[str] = []
    cache = RecordCache()
    for path in run.shard_files():
        try:
            if host and not _is_of_this_node(read_header(path), run, host):
                continue
            summaries.append(_summarise(read_shard(path, cache), path.name))
        except (DataError, OSError) as error:
            unread.append(str(error))
    return summaries, unread


def _is_of_this_node(header: Header, run: RunFolder, host: str) -> bool:
    """Whether the shard is of this node and of this job, not of an earlier job in the same folder."""
    return header.launch == run.launch if run.launch and header.launch else header.host == host


def last_line(run: RunFolder, job: Job, summaries: list[RankSummary], unread: list[str], *, merging: bool) -> str:
    """Returns the last line; it names the merge command unless no rank was recorded, or merging follows."""
    if not run.path.is_dir():
        return f"{run.path} has gone, and what was recorded with it"
    recorded = sum(summary.has_data for summary in summaries)
    expected = _expected(job, summaries)
    reasons = [*_remarks(summaries), *_missing(job, summaries, expected), *unread]
    of_this_node = " of this node" if job.host else ""
    return (
        (f"{recorded} of {expected} ranks{of_this_node} recorded" if expected else "no rank was recorded")
        + f" in {run.path}"
        + "".join(f"; {reason}" for reason in reasons)
        + (f"  ->  distprof merge {shlex.quote(str(run.path))}" if recorded and not merging else "")
    )


def _expected(job: Job, summaries: list[RankSummary]) -> int:
    """Returns how many ranks the job should have: from the launcher if it knows, else from the ranks."""
    planned = job.host_ranks if job.host else job.world_size
    known = [summary.header.local_world_size if job.host else summary.header.world_size for summary in summaries]
    return max(planned or max(known, default=0), len(summaries))


def _missing(job: Job, summaries: list[RankSummary], expected: int) -> list[str]:
    if not expected:
        return [f"every process {_LEFT_NO_SHARD}"]
    absent = expected - len(summaries)
    if not absent:
        return []
    if job.host:  # the rendezvous chose the numbers of its ranks
        return [f"{absent} {_LEFT_NO_SHARD}"]
    ranks = rank_names(set(range(expected)) - {summary.header.rank for summary in summaries})
    elsewhere = _ELSEWHERE if job.shared_name is not None and not job.on_this_node else ""
    return [f"{ranks} {_LEFT_NO_SHARD}{elsewhere}"]


def _remarks(summaries: list[RankSummary]) -> list[str]:
    ranks: dict[str, list[int]] = {}
    for summary in summaries:
        if summary.remark:
            ranks.setdefault(summary.remark, []).append(summary.header.rank)
    return [f"{rank_names(who)} {remark}" for remark, who in ranks.items()]


def _summarise(shard: Shard, source: str) -> RankSummary:
    plans = [record for record in shard.records if isinstance(record, Plan)]
    steps = used_steps([record for record in shard.records if isinstance(record, Step)], plans)
    counts = [record for record in shard.records if isinstance(record, Counts)]
    remark = _remark(shard, plans, [*counts, *steps])
    return RankSummary(shard.header, source, bool(counts or steps), remark, last_ns(shard))


def _remark(shard: Shard, every: list[Plan], recorded: list[Step | Counts]) -> str:
    for record in shard.records:
        if isinstance(record, Error):
            return f"stopped recording in {record.where}: {_short(record.message)}"
        if isinstance(record, End) and record.reason in _NOTHING_CALLED:
            return _NOTHING_CALLED[record.reason]
    last = max((record.window for record in recorded), default=0)  # a later window may be planned, and not begun
    plans = [plan for plan in every if plan.window == last]
    if not plans:
        return ""
    steps = {record.iteration for record in recorded if isinstance(record, Step) and record.window == last}
    used, planned = len(steps), plans[-1].timed
    if used >= planned:
        return ""
    ends = [record for record in shard.records if isinstance(record, End)]
    ended = not used and ends and ends[-1].reason == "exit"
    advice = short_run_advice(plans[-1], ends[-1].iterations) if ended else ""
    return f"ended after {used} of {planned} timed steps{f' ({advice})' if advice else ''}"


def _short(message: str) -> str:
    line = message.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."
