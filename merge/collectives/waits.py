"""Tells waits from work: the part of each gap in which its thread waited for other ranks.

The wait for a send or receive is known exactly: the thread was inside ``Work.wait``, and the whole gap is a wait.  A
message that was posted early blocks nothing until then.

The wait for a collective is learned.  A collective is pending from a rank's own enqueue until its last member enqueued.
It need not block: torch waits for it only where its result is needed.  Whether it blocks is learned from all ranks and
steps: the same gap of ranks that do the same work either always ends after the last member came, and a constant time
after it, or it does not wait for this collective.

    entries x gaps in which they were pending -> those that block -> wait = (last member came) - (start of the gap)

For a gap, wait is the longest of the collectives that block it and came to their end in it; the rest is its own time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, FloatArray, IntArray, first_of_each
from distprof.merge.collectives.activity import Activity, training_activity
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.collectives.job_clock import clock_of, joined_entries
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.pending import ENDED_BEFORE, Pending
from distprof.plain import dataclass

#: A gap that waits varies with the moment of the last member, and what follows that moment does not.  A collective does
#: not block where the rest of the gap varies by so many times what the whole gap does (and by more than a clock does).
REST_VARIES = 1.5
LEAST_VARIATION_NS = 200_000.0
#: A rank that leaves one long wait later begins the next one later, and then the gap varies less than its rest.  So a
#: collective blocks the gap, too, where the last member comes in this last part of it and where the gap is at most so
#: long on some rank that does the same work.
LAST_PART = 0.15
SHORT_ELSEWHERE = 0.5


@dataclass(frozen=True, eq=False)
class Waits:
    """The gaps in which a thread waited, ascending; ``entry`` is the one that it waited for longest."""

    entries: JoinedEntries
    gaps: Gaps
    gap: IntArray  # index in gaps
    entry: IntArray  # index in entries
    wait_ns: IntArray


@computed_once
def collective_waits(analysis: Analysis) -> Waits | None:
    """Returns the waits of all ranks that recorded their collectives; None where none did."""
    entries = joined_entries(analysis)
    if entries is None:
        return None
    return waits_in(training_activity(analysis, entries, clock_of(analysis)))


def waits_in(activity: Activity) -> Waits:
    """Returns the waits."""
    entries, gaps = activity.entries, activity.gaps
    longest = np.where(gaps.message >= 0, gaps.end_ns - gaps.start_ns, 0)
    entry = gaps.message.copy()
    for pending in activity.pending().by_ordinal(entries, activity.identities):
        for of_entry, of_gap in _blocking(pending, activity):
            wait_ns = _last_came_ns(entries, of_entry, gaps.end_ns[of_gap]) - gaps.start_ns[of_gap]
            order = np.lexsort((-wait_ns, of_gap))  # of equal ones, the first entry
            first = order[first_of_each(of_gap[order])]
            longer = first[wait_ns[first] > longest[of_gap[first]]]
            longest[of_gap[longer]], entry[of_gap[longer]] = wait_ns[longer], of_entry[longer]
    gap = np.flatnonzero(entry >= 0)
    return Waits(entries, gaps, gap, entry[gap], longest[gap])


def _last_came_ns(entries: JoinedEntries, entry: IntArray, end_ns: IntArray) -> IntArray:
    """Returns when the last member came, for gaps that ended at ``end_ns``.

    A gap that ended before that by no more than clocks may be wrong has ended when it came.
    """
    last_ns = entries.last_ns[entry]
    early_ns = last_ns - end_ns
    found: IntArray = np.where((early_ns > 0) & (early_ns <= entries.last_error_ns[entry]), end_ns, last_ns)
    return found


def _blocking(pending: Pending, activity: Activity) -> Iterator[tuple[IntArray, IntArray]]:
    """Yields the pairs whose collective blocks the gap and came to its end in it.

    A *kind* of pair is a gap's identity and the number of the collective in its step.  Learns from all pairs of a kind.
    """
    entries, gaps = activity.entries, activity.gaps
    ordinals = entries.ordinal[pending.entry]
    least = int(ordinals.min())
    kinds = (int(ordinals.max()) - least + 1) * activity.identities

    def pairs() -> Iterator[tuple[IntArray, IntArray, IntArray, IntArray]]:
        for every_entry, every_gap in pending.pieces():
            working = gaps.message[every_gap] < 0
            entry, gap = every_entry[working], every_gap[working]
            ordinal = entries.ordinal[entry].astype(np.int64) - least
            kind = ordinal * activity.identities + activity.identity[gap]
            yield entry, gap, kind, gaps.end_ns[gap] - _last_came_ns(entries, entry, gaps.end_ns[gap])

    sums = np.zeros((6, kinds))
    for _, gap, kind, rest_ns in pairs():
        length, rest = (gaps.end_ns[gap] - gaps.start_ns[gap]) / 1e6, rest_ns / 1e6
        for row, weights in enumerate((None, rest < 0, length, length**2, rest, rest**2)):
            sums[row] += np.bincount(kind, weights, kinds)
    blocks = _kinds_that_block(sums, activity)
    for entry, gap, kind, rest_ns in pairs():
        chosen = (rest_ns >= 0) & blocks[kind]
        yield entry[chosen], gap[chosen]


def _kinds_that_block(sums: FloatArray, activity: Activity) -> BoolArray:
    """Returns whether each kind's collective blocks its gap.

    ``sums`` are, by kind: pairs, gaps that ended before the last member came, lengths of gaps, their squares, what is
    left of gaps when the last member has come, and its squares, in ms.
    """
    known = np.maximum(sums[0], 1)
    length, rest = (
        np.sqrt(np.maximum(squares / known - (first / known) ** 2, 0)) for first, squares in (sums[2:4], sums[4:6])
    )
    found: BoolArray = rest <= REST_VARIES * length + LEAST_VARIATION_NS / 1e6
    mean = sums[2] / known
    at_its_end = ~found & (np.sqrt(sums[5] / known) <= LAST_PART * mean)
    if at_its_end.any():
        shortest = np.tile(activity.shortest_ns / 1e6, len(mean) // activity.identities)
        found |= at_its_end & (shortest <= SHORT_ELSEWHERE * mean)
    found &= sums[1] <= ENDED_BEFORE * known
    return found
