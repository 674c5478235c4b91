"""Sentences for the report's first page on faults in the shards; equal faults share one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from distprof.merge.load.rank import RankData
from distprof.merge.wording import join_words, pluralise
from distprof.rank.launches import ran_apart
from distprof.rank_names import rank_names
from distprof.records import ALONE

Member = TypeVar("Member", str, int)
Key = TypeVar("Key", str, tuple[int, str])
_LONGEST_FAILURE = 200
_ENDED_BY_LAUNCHER = ": its launcher ends all ranks when one fails, or when nodes come or go"


def reading_notes(unread: dict[str, str]) -> tuple[str, ...]:
    """Returns sentences on the files that were left out; ``unread`` has the reason of each."""
    return tuple(
        f"{join_words(files)}: left out, the file {why}"
        for why, files in _folded((why, f) for f, why in unread.items())
    )


def generation_notes(
    chosen: Sequence[RankData], passed_over: Sequence[RankData], outside: Sequence[RankData]
) -> tuple[str, ...]:
    """Returns sentences on restarts: the generation that is reported, and shards of an earlier start of more ranks."""
    notes = []
    restarted = {data.rank for data in passed_over}
    used = _folded((_which(data, passed_over), data.rank) for data in chosen if data.rank in restarted)
    notes += [f"{rank_names(ranks)} {which} is reported" for which, ranks in used]
    in_order = sorted(passed_over, key=lambda data: (data.header.generation, data.rank))
    former = _folded(((data.header.generation, why_ended(data)), data.rank) for data in in_order if _was_started(data))
    notes += [f"generation {number} of {rank_names(ranks)} {why}" for (number, why), ranks in former]
    if outside:
        ranks = rank_names(data.rank for data in outside)
        world = pluralise(max(data.header.world_size for data in outside), "rank")
        notes.append(f"{ranks} left out: of an earlier start of the job, with {world}")
    return tuple(notes)


def _was_started(data: RankData) -> bool:
    """Whether a launcher started the process as a rank."""
    return data.header.claim != ALONE


def why_ended(data: RankData) -> str:
    """Returns how the process of a shard ended, as far as its shard tells."""
    if data.end is not None and data.end.failure:
        return f"ended with {_short(data.end.failure)}"
    if data.end is not None and data.end.reason == "exit":
        return "ended with its script"
    return f"ended without an exception of its own{_ENDED_BY_LAUNCHER}"


def _short(message: str) -> str:
    line = message.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_FAILURE else f"{line[:_LONGEST_FAILURE]}..."


def earlier_notes(earlier: Sequence[RankData]) -> tuple[str, ...]:
    """Returns a sentence on shards of earlier jobs with the same name, and so the same folder."""
    if not earlier:
        return ()
    files = join_words([data.source for data in earlier])
    return (f"{files}: left out, of an earlier job of the same name, which had ended when this one was launched",)


def launch_notes(candidates: Sequence[RankData]) -> tuple[str, ...]:
    """Returns a sentence where, by their hosts' clocks, some ranks of one job ended before others were launched."""
    halves = ran_apart(candidates, lambda data: (data.header, data.last_ns))
    if halves is None:
        return ()
    before, after = (rank_names(data.rank for data in half) for half in halves)
    return (
        f"by the clocks of the hosts {before} had ended before the launch of {after}: either they disagree, or "
        f"{before} ran in an earlier job of the same name",
    )


def beside_notes(beside: Sequence[RankData]) -> tuple[str, ...]:
    """Returns a sentence on shards of processes that are no ranks of the job."""
    if not beside:
        return ()
    files = join_words([data.source for data in beside])
    return (f"{files}: left out, of a process beside the ranks (it ran by itself, or in a process group of its own)",)


def _which(data: RankData, passed_over: Sequence[RankData]) -> str:
    """Returns what the shards of a rank are, and which of them is reported."""
    scripts = {shard.header.script for shard in (data, *passed_over) if shard.rank == data.rank}
    several = f"is every process that was told no RANK ({join_words(sorted(scripts))})"
    by_itself = data.header.claim == ALONE
    which = f"generation {data.header.generation}, the newest{' with data' if data.windows else ''},"
    return f"{several if by_itself else 'started more than once'}: {which}"


def damage_notes(chosen: Sequence[RankData]) -> tuple[str, ...]:
    """Returns sentences on shards that were read in part, and on kinds of records that this version does not know."""
    damaged = _folded((_damage(data), data.source) for data in chosen if data.report.damaged)
    unknown = _folded((kind, data.source) for data in chosen for kind in data.report.unknown_kinds)
    return (
        *(f"{join_words(files)}: {what}; the rest is reported" for what, files in damaged),
        *(
            f"{join_words(files)}: records of kind {kind!r} were passed over, they come from a newer distprof"
            for kind, files in unknown
        ),
    )


def _damage(data: RankData) -> str:
    report = data.report
    lost = []
    if report.unread_bytes:
        lost.append(f"{report.unread_why} ({pluralise(report.unread_bytes, 'byte')} unread)")
    if report.sequence_gaps:
        lost.append(f"{pluralise(report.sequence_gaps, 'record')} missing")
    if report.malformed:
        lost.append(f"{pluralise(len(report.malformed), 'record')} malformed ({report.malformed[0]})")
    return ", ".join(lost)


def error_notes(chosen: Sequence[RankData]) -> tuple[str, ...]:
    """Returns sentences on recorders that failed; what they wrote before is reported."""
    failed = _folded((f"{e.where}: {e.message}", data.rank) for data in chosen for e in data.errors)
    return tuple(
        f"the recorder failed on {rank_names(ranks)} in {what}; what was recorded before holds"
        for what, ranks in failed
    )


def _folded(pairs: Iterable[tuple[Key, Member]]) -> list[tuple[Key, list[Member]]]:
    """Returns members by key, both in the order in which they came."""
    groups: dict[Key, list[Member]] = {}
    for key, member in pairs:
        groups.setdefault(key, []).append(member)
    return list(groups.items())
