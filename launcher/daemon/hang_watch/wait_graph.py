"""Who waits for whom: a rank that has entered a collective waits for the members of its group that have not.

Ranks that others miss are not the root of a hang: they may wait in another group themselves.  The root is a rank for
which others wait, and which waits for nobody.  With tp x dp = 2 x 2 and rank 3 stuck, ranks 2 and 3 are missed; rank 2
waits for rank 3, and rank 3 for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distprof.heartbeat.rank_look import OpLook
from distprof.launcher.daemon.hang_watch.evidence import Members, NodeEvidence, RankEvidence


@dataclass(frozen=True)
class Wait:
    """A rank that has entered a collective which is not complete.  ``on`` is empty if all members have entered it."""

    rank: int
    group: str  # the key; empty for a send or receive
    number: int
    op: str  # empty where it is not known
    size: str
    on: tuple[int, ...]


@dataclass(frozen=True)
class WaitGraph:
    waits: tuple[Wait, ...]

    @property
    def edges(self) -> dict[int, set[int]]:
        """Returns rank -> the ranks that it waits for."""
        found: dict[int, set[int]] = {}
        for wait in self.waits:
            found.setdefault(wait.rank, set()).update(wait.on)
        return found

    @property
    def roots(self) -> tuple[int, ...]:
        """The ranks for which others wait, and which wait for nobody."""
        edges = self.edges
        awaited = set().union(*edges.values()) if edges else set()
        return tuple(sorted(rank for rank in awaited if not edges.get(rank)))

    @property
    def cycle(self) -> tuple[int, ...]:
        """Returns ranks that wait for each other in a circle, each for the next one; empty if there is none."""
        edges = self.edges
        for start in sorted(edges):
            path, seen = [start], {start}
            while following := sorted(edges.get(path[-1], ())):
                if following[0] in seen:
                    return tuple(path[path.index(following[0]) :])
                path.append(following[0])
                seen.add(following[0])
        return ()


def wait_graph(evidence: NodeEvidence) -> WaitGraph:
    """Returns who waits for whom.  A rank whose thread cannot be in a collective waits for nobody."""
    ranks = {rank.rank: rank for rank in evidence.ranks}
    found: list[Wait] = []
    for rank in evidence.ranks:
        if rank.runs and rank.could_wait:
            found += _collective_waits(rank, ranks, evidence.groups)
            found += [Wait(rank.rank, op.group, -1, op.op, op.size, (op.peer,)) for op in _messages(rank)]
    return WaitGraph(tuple(found))


def _collective_waits(
    rank: RankEvidence, ranks: Mapping[int, RankEvidence], groups: Mapping[str, Members]
) -> list[Wait]:
    found = []
    for key, (enqueued, completed) in (rank.progress or {}).items():
        if key not in groups or enqueued <= completed or enqueued < 0:
            continue
        op = running_op(rank, key)
        number = op.number if op is not None else completed + 1 if completed >= 0 else enqueued
        on = tuple(
            other
            for other in groups[key].ranks
            if other != rank.rank and not _has_entered(ranks.get(other), key, number)
        )
        found.append(Wait(rank.rank, key, number, op.op if op else "", op.size if op else "", on))
    return found


def running_op(rank: RankEvidence, key: str) -> OpLook | None:
    """Returns the oldest collective of a group that a rank has entered, and that is not complete."""
    running = [op for op in rank.ops if op.group == key and not op.done and op.number >= 0]
    return min(running, key=lambda op: op.number, default=None)


def _messages(rank: RankEvidence) -> list[OpLook]:
    return [op for op in rank.ops if op.number < 0 and not op.done and op.peer >= 0]


def _has_entered(other: RankEvidence | None, key: str, number: int) -> bool:
    """Whether a rank has entered a collective; False where it is not known."""
    if other is None or other.progress is None or key not in other.progress:
        return False
    return other.progress[key][0] >= number
