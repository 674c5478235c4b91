"""The verdict on a job that stands still, from the evidence of all nodes that could be heard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from distprof.heartbeat.hang_file import DEAD, DEADLOCK, MISMATCH, MISSING, OUTSIDE, SLOW, UNKNOWN, Hang
from distprof.launcher.daemon.hang_watch import evidence as states
from distprof.launcher.daemon.hang_watch.evidence import NodeEvidence, RankEvidence
from distprof.launcher.daemon.hang_watch.folding import doing, fold, unique
from distprof.launcher.daemon.hang_watch.mismatch import Mismatch, find_mismatch
from distprof.launcher.daemon.hang_watch.wait_graph import Wait, WaitGraph, wait_graph
from distprof.rank_names import rank_names


class _Cause(NamedTuple):
    kind: str
    ranks: tuple[int, ...]
    sentence: str


def judge(evidence: NodeEvidence, remarks: Sequence[str] = ()) -> Hang | None:
    """Returns what keeps the job standing; None if it may stand longer, or does not stand still.

    The limit that counts is that of the root, because the others wait for it, whatever it does.  ``remarks`` are
    further sentences on the evidence.
    """
    graph, mismatch = wait_graph(evidence), find_mismatch(evidence)
    ranks = {rank.rank: rank for rank in evidence.ranks}
    root = mismatch.odd if mismatch is not None else graph.roots or graph.cycle or _without_wait(evidence, graph)
    involved = [ranks[rank] for rank in root if rank in ranks and ranks[rank].runs]
    if involved and not any(rank.age_s > rank.limit_s for rank in involved):
        return None
    cause = _cause_of_waits(root, ranks, graph, evidence) if mismatch is None else _mismatch(mismatch, evidence)
    if cause is None:
        return None
    first = min(involved, key=lambda rank: rank.rank, default=evidence.ranks[0])
    oldest_s = max((rank.age_s for rank in evidence.ranks if rank.runs), default=0.0)
    return Hang(
        kind=cause.kind,
        ranks=cause.ranks,
        waiting=tuple(sorted({wait.rank for wait in graph.waits} - set(root))),
        iteration=first.iteration,
        age_s=round(oldest_s, 1),
        wall_ns=time.time_ns(),
        cause=cause.sentence,
        where=fold(evidence, graph),
        evidence=tuple(remarks),
    )


def _cause_of_waits(
    root: Sequence[int], ranks: Mapping[int, RankEvidence], graph: WaitGraph, evidence: NodeEvidence
) -> _Cause | None:
    """Returns the cause that follows from who waits for whom; None where nobody waits, and all ranks go on."""
    if graph.roots:
        return _root(root, ranks, graph)
    if graph.cycle:
        return _Cause(DEADLOCK, tuple(root), f"{rank_names(root)} wait for each other: {_circle(graph, evidence)}")
    if graph.waits:
        return _Cause(UNKNOWN, (), f"{_waits(graph.waits, evidence)}: all have entered it, and it does not complete")
    if all(ranks[rank].moved for rank in root):
        return None
    return _outside(root, ranks, graph)


def _without_wait(evidence: NodeEvidence, graph: WaitGraph) -> tuple[int, ...]:
    """Returns the ranks beyond their limits, where nobody waits for anybody; else all that wait."""
    if graph.waits:
        return tuple(sorted({wait.rank for wait in graph.waits}))
    return tuple(rank.rank for rank in evidence.ranks if rank.runs and rank.age_s > rank.limit_s)


def _root(root: Sequence[int], ranks: Mapping[int, RankEvidence], graph: WaitGraph) -> _Cause:
    """Returns the cause where others wait for ``root``: the dead first, then those that left."""
    dead = tuple(rank for rank in root if rank in ranks and ranks[rank].state == states.DEAD)
    left = tuple(rank for rank in root if rank in ranks and ranks[rank].state == states.ENDED)
    unheard = tuple(rank for rank in root if rank not in ranks)
    if dead:
        gone = ", ".join(f"process {ranks[rank].pid} has gone in iteration {ranks[rank].iteration}" for rank in dead)
        return _Cause(DEAD, dead, f"{rank_names(dead)} died: {gone}{_awaited(dead, graph)}")
    if left:
        last = ", ".join(unique(str(ranks[rank].iteration) for rank in left))
        return _Cause(
            MISSING, left, f"{rank_names(left)} left: the script ended after iteration {last}{_awaited(left, graph)}"
        )
    if unheard:
        return _Cause(MISSING, unheard, f"nothing is heard of {rank_names(unheard)}{_awaited(unheard, graph)}")
    return _outside(root, ranks, graph)


def _outside(root: Sequence[int], ranks: Mapping[int, RankEvidence], graph: WaitGraph) -> _Cause:
    at: dict[str, list[int]] = {}
    for rank in root:
        at.setdefault(doing(ranks[rank], graph), []).append(rank)
    where = "; ".join(f"{rank_names(some)} {what}" for what, some in at.items())
    if all(ranks[rank].moved for rank in root):
        return _Cause(SLOW, tuple(root), f"{where}: slow, but moving{_awaited(root, graph)}")
    return _Cause(OUTSIDE, tuple(root), f"{where}{_awaited(root, graph)}")


def _mismatch(found: Mismatch, evidence: NodeEvidence) -> _Cause:
    calls = ", ".join(
        f"{rank_names(ranks)} {'call' if len(ranks) > 1 else 'calls'} {what}" for what, ranks in found.calls
    )
    where = f"collective {found.number} of {_group(found.group, evidence)}"
    return _Cause(MISMATCH, found.odd, f"{calls} as {where}")


def _awaited(root: Iterable[int], graph: WaitGraph) -> str:
    """Returns who waits for a root, directly or not, and in what."""
    direct = [wait for wait in graph.waits if set(root) & set(wait.on)]
    if not direct:
        return ""
    others = sorted({wait.rank for wait in graph.waits} - set(root))
    ops = " and ".join(unique(wait.op or "a collective" for wait in direct))
    return f"; {rank_names(others)} {'wait' if len(others) > 1 else 'waits'} in {ops}"


def _circle(graph: WaitGraph, evidence: NodeEvidence) -> str:
    cycle = graph.cycle
    sentences = []
    for rank, following in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
        wait = next(wait for wait in graph.waits if wait.rank == rank and following in wait.on)
        sentences.append(f"rank {rank} for rank {following} in {_call(wait, evidence)}")
    return ", ".join(sentences)


def _waits(waits: Sequence[Wait], evidence: NodeEvidence) -> str:
    at: dict[str, list[int]] = {}
    for wait in waits:
        at.setdefault(_call(wait, evidence), []).append(wait.rank)
    return "; ".join(f"{rank_names(set(ranks))} wait in {call}" for call, ranks in at.items())


def _call(wait: Wait, evidence: NodeEvidence) -> str:
    number = f" (collective {wait.number} of {_group(wait.group, evidence)})" if wait.number >= 0 else ""
    return f"{wait.op or 'a collective'}{number}"


def _group(key: str, evidence: NodeEvidence) -> str:
    group = evidence.groups[key]
    return f"group {group.name}, {rank_names(group.ranks)}"
