"""For which rank the others wait at one moment, by how far the collectives of each group are.

In a job that goes in step, the iterations of all ranks take equally long: all wait for the slowest one.  So durations
name nobody there.  A rank is late in a group while it has enqueued fewer collectives than each other member, and while
all others have one that is not completed.  In a job without groups, durations are compared.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distprof.heartbeat.slot import GroupProgress, Position

#: In a job without groups, a rank is slower than the others from this share of its iteration on.
SLOW_SHARE = 0.05
_STAGE = re.compile(r"\bpp (\d+)")
_SEVERAL = 2


class RankPosition(NamedTuple):
    """One rank at one look."""

    rank: int
    place: str  # its coordinates, as text
    position: Position


@dataclass(frozen=True)
class Look:
    """What was seen of all ranks of a node at one moment."""

    iteration: int  # of the rank that is furthest behind
    slowest: int | None = None  # the rank for which the others waited, or whose iteration took longest
    lost: float = 0.0  # 1 where others waited; without groups, the share of its iteration that the rank lost
    compared: int = 0  # the ranks with which it was compared, itself included
    waiting: frozenset[int] = frozenset()  # the ranks that waited for another one


class _Late(NamedTuple):
    """A rank that is late in a group, and the members that wait for it."""

    rank: int
    waiting: frozenset[int]


def look_at(ranks: Sequence[RankPosition]) -> Look:
    """Returns what the positions of ranks at one moment say."""
    iteration = min(one.position.iteration for one in ranks)
    groups = list(_groups(ranks))
    if not groups and not any(one.position.groups for one in ranks):
        return _by_durations(iteration, ranks)
    late = [found for members in groups if (found := _late(members)) is not None]
    waiting = frozenset[int]().union(*(one.waiting for one in late))
    roots = {one.rank for one in late} - waiting  # a rank that waits itself is not the cause
    if len(roots) != 1:
        return Look(iteration, waiting=waiting)
    (root,) = roots
    compared = min(1 + len(one.waiting) for one in late if one.rank == root)
    return Look(iteration, root, 1.0, compared, waiting)


def _groups(ranks: Sequence[RankPosition]) -> Iterator[dict[int, GroupProgress]]:
    """Yields the members of each group that are on this node, if they are several and do equal work.

    Groups are joined by their members and, where a rank made several of the same members, by their order.
    """
    found: dict[tuple[int, int], dict[int, GroupProgress]] = {}
    for one in ranks:
        made = Counter[int]()
        for group in one.position.groups:
            made[group.members] += 1
            found.setdefault((group.members, made[group.members]), {})[one.rank] = group
    stages = {one.rank: _stage(one.place) for one in ranks}
    for members in found.values():
        if len(members) >= _SEVERAL and len({stages[rank] for rank in members}) == 1:
            yield members


def _stage(place: str) -> str:
    match = _STAGE.search(place)
    return match[1] if match is not None else ""


def _late(members: dict[int, GroupProgress]) -> _Late | None:
    """Returns the rank for which all others of a group wait, if they wait for one.

    What a member has completed, the late one has enqueued: else numbers of different collectives were compared.
    """
    last, *others = sorted(members, key=lambda rank: members[rank].enqueued)
    reached = members[last].enqueued
    for rank in others:
        if not reached < members[rank].enqueued or not 0 <= members[rank].completed <= reached:
            return None
    return _Late(last, frozenset(others)) if reached >= 0 else None


def _by_durations(iteration: int, ranks: Sequence[RankPosition]) -> Look:
    """Compares the last iterations of ranks that do not wait for each other."""
    times = {one.rank: one.position.duration_ns for one in ranks if one.position.duration_ns}
    if len(times) < max(_SEVERAL, len(ranks)):
        return Look(iteration)
    slowest = max(times, key=lambda rank: times[rank] or 0)
    own, others = times.pop(slowest) or 0, statistics.median(time or 0 for time in times.values())
    lost = (own - others) / own
    return Look(iteration, slowest, lost, len(ranks)) if lost >= SLOW_SHARE else Look(iteration)
