"""All ranks with their places in one line: ``ranks 0-2, 4-7 in all_reduce of backward, train.py:30; rank 3 in ...``."""

from __future__ import annotations

from collections.abc import Iterable

from distprof.launcher.daemon.hang_watch.evidence import DEAD, ENDED, NodeEvidence, RankEvidence
from distprof.launcher.daemon.hang_watch.places import CHECKPOINT, COMPILATION, EVALUATION
from distprof.launcher.daemon.hang_watch.wait_graph import WaitGraph
from distprof.rank_names import rank_names

_STOPPED = {"T": "stopped by a signal", "t": "stopped by a debugger", "D": "waiting for a device or a disk"}
_NAMED = (EVALUATION, CHECKPOINT, COMPILATION)
_BUSY = 0.5


def fold(evidence: NodeEvidence, graph: WaitGraph) -> str:
    """Returns the places of all ranks; ranks at the same place are named together."""
    at: dict[str, list[int]] = {}
    for rank in evidence.ranks:
        at.setdefault(doing(rank, graph), []).append(rank.rank)
    most_first = sorted(at.items(), key=lambda item: (-len(item[1]), item[1]))
    return "; ".join(f"{rank_names(ranks)} {what}" for what, ranks in most_first)


def doing(rank: RankEvidence, graph: WaitGraph) -> str:
    """Returns what a rank does, in words that follow its name."""
    if rank.state == DEAD:
        return f"dead since iteration {rank.iteration}"
    if rank.state == ENDED:
        return f"ended after iteration {rank.iteration}"
    ops = unique(wait.op or "a collective" for wait in graph.waits if wait.rank == rank.rank)
    if ops:
        inside = f"in {' and '.join(ops)}{f' of {rank.phase}' if rank.phase else ''}"
        return ", ".join(filter(None, (inside, rank.place)))
    named = f"{rank.phase}: " if rank.phase in _NAMED else ""
    return ", ".join(filter(None, (f"in {named}{rank.place or 'a place that is not known'}", how_it_stands(rank))))


def how_it_stands(rank: RankEvidence) -> str:
    """Returns whether a rank that is stuck is stopped, busy or asleep; empty where that is not known."""
    if rank.process in _STOPPED:
        return _STOPPED[rank.process]
    if rank.process == "R" or rank.busy >= _BUSY:  # on a busy machine it gets a small part of a processor
        return "busy" if rank.progress is not None else "busy, and it holds Python's lock"
    return "asleep" if rank.process else ""


def unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
