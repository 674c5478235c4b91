"""Pairs of a collective and a gap that began while the collective was pending."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from distprof.merge.arrays import BoolArray, IntArray, ragged
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.collectives.join import JoinedEntries
from distprof.plain import dataclass

#: A collective blocks a gap if at most this share of the gaps in which it was pending ended before its last member
#: came.  It is above 0, because the clocks of hosts differ a little, and a thread may leave its wait by an error.
ENDED_BEFORE = 0.1
#: Pairs, and kinds of them, that are looked at together, so that memory stays bounded.
_PAIRS_AT_ONCE = _KINDS_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False)
class Pending:
    """Of some entries, each with the gaps that began while it was pending: ``number`` of them, from ``first`` on."""

    entry: IntArray
    first: IntArray
    number: IntArray

    def pieces(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Yields the pairs of an entry and a gap, some at a time."""
        piece = np.cumsum(self.number) // _PAIRS_AT_ONCE
        bounds = [*np.flatnonzero(np.diff(piece, prepend=-1)).tolist(), len(piece)]
        for start, end in pairwise(bounds):
            number = self.number[start:end]
            yield np.repeat(self.entry[start:end], number), ragged(self.first[start:end], number)

    def of(self, chosen: BoolArray | IntArray) -> Pending:
        """Returns some of the entries, each with all of its gaps."""
        return Pending(self.entry[chosen], self.first[chosen], self.number[chosen])

    def by_ordinal(self, entries: JoinedEntries, kinds: int) -> Iterator[Pending]:
        """Yields all pairs of some ordinals at a time, which are those of some kinds: at most ``kinds`` each."""
        ordinal = entries.ordinal[self.entry]
        order = np.argsort(ordinal, kind="stable")
        together = max(_KINDS_AT_ONCE // kinds, 1)
        bounds = np.searchsorted(ordinal[order], np.arange(0, int(ordinal.max(initial=-1)) + 1 + together, together))
        for start, end in pairwise(bounds.tolist()):
            if start < end:
                yield self.of(order[start:end])


def all_pending(entries: JoinedEntries, gaps: Gaps) -> Pending:
    """Returns the collectives of all ranks with the gaps of the same step that began while they were pending: the
    thread had enqueued them, and the last member had not come.
    """
    first, number = np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)
    for own, of_rank in zip(entries.of_rank, gaps.of_rank, strict=False):
        steps, starts = gaps.step[of_rank], gaps.start_ns[of_rank]
        enqueued, last, step = entries.enqueued_ns[own], entries.last_ns[own], entries.step[own]
        begin = np.maximum(np.searchsorted(starts, enqueued), np.searchsorted(steps, step))
        end = np.minimum(np.searchsorted(starts, last), np.searchsorted(steps, step, side="right"))
        first[own], number[own] = begin + of_rank.start, np.where(last > enqueued, np.maximum(end - begin, 0), 0)
    chosen = np.flatnonzero((number > 0) & ~entries.is_message)
    return Pending(chosen, first[chosen], number[chosen])
