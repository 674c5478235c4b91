"""The last line of a job: how many of how many ranks were recorded, why not all, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from distprof.errors import DataError
from distprof.launcher.run_setup import Job
from distprof.rank.launches import newest_job
from distprof.rank.ownership import claim_strength, minimum_claim_strength
from distprof.records import ALONE, NO_MODULE, ONLY_COMPILED, Counts, End, Error, Header, Plan, Step
from distprof.run_folder import RunFolder
from distprof.shard.reader import RecordCache, Shard, last_ns, read_header, read_shard

_LEFT_NO_SHARD = (
    "left no shard: killed before the first call of a model, not able to write here (it said so), "
    "or Python did not load distprof (-I, -E or -S, or not installed)"
)
_UNCALLED = {
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
    recorded: bool
    remark: str
    last_ns: int = 0  # when the rank is last known to have run, wall time


def read_rank_summaries(run: RunFolder, host: str = "") -> tuple[list[RankSummary], list[str]]:
    """What each rank (of ``host``, if given) left, by rank, and a sentence for all that is not among it.

    As in a report, of the strongest claims to a rank the newest that holds data stands for it, and earlier jobs of the
    same name are passed over.
    """
    everything, others = _read_all(run, host)
    outcomes, _ = newest_job(everything, lambda one: (one.header, one.last_ns))
    least = minimum_claim_strength(outcome.header for outcome in outcomes)
    world = _world_size(outcomes)
    found: dict[int, RankSummary] = {}
    for outcome in outcomes:
        rank = outcome.header.rank
        stands = rank < world and claim_strength(outcome.header.claim) >= least
        if stands and (rank not in found or _weight(found[rank]) < _weight(outcome)):
            found[rank] = outcome
    return [found[rank] for rank in sorted(found)], [*_strangers(outcomes, found), *others]


def _world_size(outcomes: list[RankSummary]) -> int:
    """Of the job when it began last: an elastic one may have had more ranks before."""
    headers = sorted((one.header for one in outcomes), key=lambda one: (claim_strength(one.claim), one.wall_ns))
    return headers[-1].world_size if headers else 0


def _strangers(outcomes: list[RankSummary], found: dict[int, RankSummary]) -> list[str]:
    """Several processes that ran by themselves: nothing told them apart, and one of them stands for all."""
    alone = [outcome.header for outcome in outcomes if outcome.recorded and outcome.header.claim == ALONE]
    if len({header.pid for header in alone}) < 2 or any(one.header.claim != ALONE for one in found.values()):
        return []
    return [f"{len(alone)} processes ran models and none was told its RANK: merging reports the last that began"]


def _read_all(run: RunFolder, host: str) -> tuple[list[RankSummary], list[str]]:
    outcomes: list[RankSummary] = []
    unread: list[str] = []
    memo = RecordCache()
    for path in run.shard_files():
        try:
            if host and not _is_of_this_node(read_header(path), run, host):
                continue
            outcomes.append(_outcome(read_shard(path, memo)))
        except (DataError, OSError) as error:
            unread.append(str(error))
    return outcomes, unread


def _is_of_this_node(header: Header, run: RunFolder, host: str) -> bool:
    """And of this job, not of one before it that shared the folder."""
    return header.launch == run.launch if run.launch and header.launch else header.host == host


def _weight(outcome: RankSummary) -> tuple[int, bool, int]:
    return claim_strength(outcome.header.claim), outcome.recorded, outcome.header.generation


def last_line(run: RunFolder, job: Job, outcomes: list[RankSummary], unread: list[str], *, merging: bool) -> str:
    """The whole sentence; it names no next step where there is nothing to merge, or where that follows by itself."""
    if not run.path.is_dir():
        return f"{run.path} has gone, and what was recorded with it"
    recorded = sum(outcome.recorded for outcome in outcomes)
    expected = _expected(job, outcomes)
    reasons = [*_remarks(outcomes), *_missing(job, outcomes, expected), *unread]
    of_this_node = " of this node" if job.host else ""
    return (
        (f"{recorded} of {expected} ranks{of_this_node} recorded" if expected else "no rank was recorded")
        + f" in {run.path}"
        + "".join(f"; {reason}" for reason in reasons)
        + (f"  ->  distprof merge {shlex.quote(str(run.path))}" if outcomes and not merging else "")
    )


def spans(ranks: Iterable[int]) -> str:
    """``rank 3`` or ``ranks 0-3, 7``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"rank {text}" if text.isdecimal() else f"ranks {text}"


def _expected(job: Job, outcomes: list[RankSummary]) -> int:
    """How many ranks there should be; what the launcher was not told, the ranks know."""
    told = job.host_ranks if job.host else job.world_size
    known = [outcome.header.local_world_size if job.host else outcome.header.world_size for outcome in outcomes]
    return max(told or max(known, default=0), len(outcomes))


def _missing(job: Job, outcomes: list[RankSummary], expected: int) -> list[str]:
    if not expected:
        return [f"every process {_LEFT_NO_SHARD}"]
    absent = expected - len(outcomes)
    if not absent:
        return []
    if job.host:  # the numbers of its ranks were given out by the rendezvous
        return [f"{absent} {_LEFT_NO_SHARD}"]
    return [f"{spans(set(range(expected)) - {outcome.header.rank for outcome in outcomes})} {_LEFT_NO_SHARD}"]


def _remarks(outcomes: list[RankSummary]) -> list[str]:
    ranks: dict[str, list[int]] = {}
    for outcome in outcomes:
        if outcome.remark:
            ranks.setdefault(outcome.remark, []).append(outcome.header.rank)
    return [f"{spans(who)} {remark}" for remark, who in ranks.items()]


def _outcome(shard: Shard) -> RankSummary:
    steps = {record.iteration for record in shard.records if isinstance(record, Step)}
    counts = sum(isinstance(record, Counts) for record in shard.records)
    return RankSummary(shard.header, bool(steps or counts), _remark(shard, len(steps)), last_ns(shard))


def _remark(shard: Shard, steps: int) -> str:
    for record in shard.records:
        if isinstance(record, Error):
            return f"stopped recording in {record.where}: {_short(record.message)}"
        if isinstance(record, End) and record.reason in _UNCALLED:
            return _UNCALLED[record.reason]
    plans = [record for record in shard.records if isinstance(record, Plan)]
    planned, settling = max(((plan.timed, plan.settling) for plan in plans), default=(0, 0))
    used = max(steps - settling, 0)
    return f"ended after {used} of {planned} timed steps" if used < planned else ""


def _short(message: str) -> str:
    line = message.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."
