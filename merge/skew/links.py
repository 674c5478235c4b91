"""Slow links: groups whose collectives take longer than those of their siblings once all members came.

    for each collective the least, over its members, of (next sign of life - last member came)
    -> sums by step over groups that divide the ranks in the same way -> the group that stands out

A slow member makes the others wait for it, but does not lengthen what follows when it has come; a slow link does, for
all members.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import FloatArray, IntArray, distinct, smallest_of_each
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.collectives.waits import collective_waits
from distprof.merge.skew.thresholds import LINK_FACTOR, PAIR_SHARE, PERSISTENT, SLOW_SHARE, STEP_SHARE
from distprof.merge.stats import middle
from distprof.plain import dataclass

Members = tuple[int, ...]


@dataclass(frozen=True)
class SlowLink:
    members: Members
    name: str  # torch's name of the group
    excess_ns: float  # the median over steps of its transfers minus those of its siblings
    siblings_ns: float  # the median of the siblings
    steps: int
    of_steps: int
    groups: int  # itself included


@computed_once
def transfers(analysis: Analysis) -> dict[tuple[str, Members], tuple[str, FloatArray]]:
    """Returns by (op, members) the name of the group, and the ns by step from the last member to the first sign of life
    of any member.
    """
    waits = None if why_no_own_times(analysis) else collective_waits(analysis)
    if waits is None:
        return {}
    entries = waits.entries
    after = _after_last_member(entries, waits.gaps)
    counted = np.flatnonzero(entries.whole & (after >= 0))
    events, event = np.unique(entries.event[counted], return_inverse=True)
    least = smallest_of_each(event, after[counted], len(events))
    step, first = np.zeros(len(events), np.int64), np.zeros(len(events), np.int64)
    step[event], first[event] = entries.step[counted], counted
    found: dict[tuple[str, Members], tuple[str, FloatArray]] = {}
    kinds = entries.channel[first].astype(np.int64) * len(entries.ops) + entries.op[first]
    for kind in distinct(kinds).tolist():
        channel = entries.channels[kind // len(entries.ops)]
        own = kinds == kind
        ends = tuple(sorted(channel.participants)) if channel.is_of_messages else channel.members
        key = entries.ops[kind % len(entries.ops)], ends
        sums = found.setdefault(key, (channel.group, np.zeros(len(entries.iterations))))[1]
        np.add.at(sums, step[own], least[own].astype(np.float64))
    return found


def _after_last_member(entries: JoinedEntries, gaps: Gaps) -> IntArray:
    """Returns for each entry the ns from its last member to the rank's next sign of life; -1 where it does not wait.

    A short gap is not recorded, so an entry without one goes on at once.  A receive goes on when the gap ends in which
    its wait does.
    """
    after = np.zeros(len(entries), np.int64)
    found = np.flatnonzero(gaps.after_enqueue >= 0)
    last = np.maximum(entries.last_ns[found], entries.enqueued_ns[found])
    after[found] = np.maximum(gaps.end_ns[gaps.after_enqueue[found]] - last, 0)
    for column in distinct(entries.column[entries.waited_until_ns > 0]).tolist():
        own, of_rank = (
            np.arange(*np.searchsorted(columns, [column, column + 1]).tolist())  # both are ordered by rank
            for columns in (entries.column, gaps.column)
        )
        waited = own[entries.waited_until_ns[own] > 0]
        began = np.maximum(entries.last_ns[waited], entries.waited_from_ns[waited])
        after[waited] = np.maximum(_next_sign(gaps, of_rank, entries.waited_until_ns[waited]) - began, 0)
    after[np.array([op == "send" for op in entries.ops], bool)[entries.op]] = -1
    return after


def _next_sign(gaps: Gaps, of_rank: IntArray, moments_ns: IntArray) -> IntArray:
    """Returns the ends of a rank's gaps in which moments lie; a moment itself where it lies in none."""
    if not len(of_rank):
        return moments_ns
    at = of_rank[np.maximum(np.searchsorted(gaps.start_ns[of_rank], moments_ns, side="right") - 1, 0)]
    inside = (gaps.start_ns[at] <= moments_ns) & (moments_ns < gaps.end_ns[at])
    return np.where(inside, gaps.end_ns[at], moments_ns)


@computed_once
def slow_link(analysis: Analysis) -> SlowLink | None:
    """Returns the group whose transfers stand out most among its siblings; None where none does."""
    times = analysis.iterations
    iteration_ns = times.median_ns if times is not None else 0.0
    found = [link for same in _siblings(transfers(analysis)) for link in _standing_out(same, iteration_ns)]
    return max(found, key=lambda link: link.excess_ns, default=None)


def _siblings(
    found: Mapping[tuple[str, Members], tuple[str, FloatArray]],
) -> list[dict[Members, tuple[str, FloatArray]]]:
    """Returns the sums over all ops of groups of one size that have the same siblings."""
    by_kind: dict[tuple[str, int], dict[Members, tuple[str, FloatArray]]] = {}
    for (op, members), own in found.items():
        by_kind.setdefault((op, len(members)), {})[members] = own
    partitions: dict[frozenset[Members], dict[Members, tuple[str, FloatArray]]] = {}
    for groups in by_kind.values():
        for disjoint in _disjoint(groups):
            sums = partitions.setdefault(disjoint, {})
            for members in sorted(disjoint):
                name, times = groups[members]
                sums[members] = (name, times + sums[members][1] if members in sums else times)
    return [groups for groups in partitions.values() if len(groups) > 1]


def _disjoint(groups: Collection[Members]) -> Iterator[frozenset[Members]]:
    """Yields groups that divide ranks: groups along two axes may have one size, and share ranks."""
    divisions: list[tuple[set[int], list[Members]]] = []
    for members in sorted(groups):
        ranks, found = next((one for one in divisions if one[0].isdisjoint(members)), (set(), []))
        if not found:
            divisions.append((ranks, found))
        ranks.update(members)
        found.append(members)
    return (frozenset(found) for _, found in divisions)


def _standing_out(groups: Mapping[Members, tuple[str, FloatArray]], iteration_ns: float) -> Sequence[SlowLink]:
    members = list(groups)
    times = np.stack([groups[own][1] for own in members])
    share = SLOW_SHARE if len(members) > 2 else PAIR_SHARE
    found = []
    for number, own in enumerate(members):
        rest = np.delete(times, number, axis=0)
        normal = middle(rest, axis=0)
        excess = times[number] - normal
        size = float(middle(excess))
        steps = int(np.count_nonzero((excess >= STEP_SHARE * size) & (times[number] > rest.max(axis=0))))
        clear = float(middle(times[number])) >= LINK_FACTOR * max(float(middle(normal)), 1.0)
        if size >= share * iteration_ns > 0 and clear and steps >= PERSISTENT * len(excess):
            found.append(SlowLink(own, groups[own][0], size, float(middle(normal)), steps, len(excess), len(members)))
    return found
