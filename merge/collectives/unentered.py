"""Collectives that some members of a group never entered: often the reason for a hang, or for wrong gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import IntArray
from distprof.merge.collectives.join import JoinedEntries, recorded
from distprof.merge.collectives.kinds import group_kind
from distprof.merge.report import Unentered


def unentered_collectives(analysis: Analysis, entries: JoinedEntries) -> tuple[Unentered, ...]:
    """Returns the first such collective of each group.

    A member never entered one if it has not entered any later one of the group either, though it recorded a later step
    and lost nothing.  Those of the first and the last step are left out: a member may have entered them outside of its
    timed steps.
    """
    found: dict[int, Unentered] = {}
    for one, channel in _candidates(analysis, entries):
        if channel not in found or one.number < found[channel].number:
            found[channel] = one
    return tuple(found[channel] for channel in sorted(found))


def _candidates(analysis: Analysis, entries: JoinedEntries) -> Iterator[tuple[Unentered, int]]:
    own = recorded(analysis)
    order = np.argsort(entries.event, kind="stable")
    events, first = np.unique(entries.event[order], return_index=True)
    for number in _lacking(entries, events).tolist():
        places = order[first[number] : first[number + 1] if number + 1 < len(first) else None]
        channel = int(entries.channel[places[0]])
        name, members = entries.channels[channel].group, entries.channels[channel].members
        iteration = entries.iterations[int(entries.step[places].max())]
        entered = {entries.ranks[column] for column in entries.column[places].tolist()}
        missing = [
            rank
            for rank in sorted(set(members) & own.keys() - entered)
            if own[rank].iterations[-1] > iteration
            and not own[rank].lost.any()
            and _last_number(entries, channel, rank) < int(entries.number[places[0]])
        ]
        if missing:
            yield (
                Unentered(
                    group=name,
                    kind=group_kind(analysis.layout, members, analysis.run.world_size, name),
                    op=entries.ops[int(entries.op[places[0]])],
                    number=int(entries.number[places[0]]),
                    iteration=iteration,
                    entered=tuple(sorted(entered)),
                    missing=tuple(missing),
                ),
                channel,
            )


def _lacking(entries: JoinedEntries, events: IntArray) -> IntArray:
    """Returns the places in ``events`` of collectives of inner steps that a recorded member did not enter."""
    known = set(entries.ranks)
    expected = np.array(
        [0 if channel.is_of_messages else len(known.intersection(channel.members)) for channel in entries.channels],
        np.int64,
    )
    _, at, entered = np.unique(entries.event, return_index=True, return_counts=True)
    inner = (entries.step[at] > 0) & (entries.step[at] < len(entries.iterations) - 1)
    lacking: IntArray = np.flatnonzero(inner & (entered < expected[entries.channel[at]]))
    return lacking


def _last_number(entries: JoinedEntries, channel: int, rank: int) -> int:
    own = entries.of_rank[entries.ranks.index(rank)]
    return int(entries.number[own][entries.channel[own] == channel].max(initial=-1))
