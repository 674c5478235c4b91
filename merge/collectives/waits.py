"""Tells waits from work: the part of each gap in which its thread waited for the last member of a collective.

A collective is pending from a rank's own enqueue until its last member enqueued.  It need not block: torch waits for it
only where its result is needed.  Whether it blocks is learned from all ranks and steps: the same gap of ranks that do
the same work either always ends after the last member came, and a constant time after it, or it does not wait for this
collective.

    entries x gaps in which they were pending -> those that block -> wait = (last member came) - (start of the gap)

For a gap, wait is the longest of the collectives that block it and came to their end in it; the rest is its own time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import IntArray
from distprof.merge.collectives.gaps import Gaps, training_gaps
from distprof.merge.collectives.join import JoinedEntries, joined_entries

#: A collective blocks a gap if at most this share of the gaps in which it was pending ended before its last member
#: came.  It is above 0, because the clocks of hosts differ a little, and a thread may leave its wait by an error.
ENDED_BEFORE = 0.1
#: A gap that waits varies with the moment of the last member, and what follows that moment does not.  A collective does
#: not block where the rest of the gap varies by so many times what the whole gap does (and by more than a clock does).
REST_VARIES = 1.5
LEAST_VARIATION_NS = 200_000.0
_TIME_BITS = 44


@dataclass(frozen=True, eq=False)
class Waits:
    """The gaps in which a thread waited; ``entry`` is the one that it waited for longest."""

    entries: JoinedEntries
    gaps: Gaps
    gap: IntArray  # index in gaps
    entry: IntArray  # index in entries
    wait_ns: IntArray


@dataclass(frozen=True, eq=False)
class Pending:
    """Pairs of an entry and a gap that began while it was pending."""

    entry: IntArray
    gap: IntArray

    def those(self, chosen: npt.NDArray[np.bool_]) -> Pending:
        return Pending(self.entry[chosen], self.gap[chosen])


@computed_once
def collective_waits(analysis: Analysis) -> Waits | None:
    """Returns the waits of all ranks that recorded their collectives; None where none did."""
    entries = joined_entries(analysis)
    if entries is None:
        return None
    gaps = training_gaps(analysis, entries)
    cohort = np.array([analysis.cohorts[rank] for rank in entries.ranks], np.int64)
    pending = pending_entries(entries, gaps)
    blocking = pending.those(blocks(entries, gaps, pending, cohort))
    blocking = blocking.those(entries.last_ns[blocking.entry] <= gaps.end_ns[blocking.gap])
    return _longest(entries, gaps, blocking)


def pending_entries(entries: JoinedEntries, gaps: Gaps) -> Pending:
    """Returns the entries that were enqueued before a gap of the same step and complete only after its start."""
    steps = len(entries.iterations)
    gap_step = gaps.column.astype(np.int64) * steps + gaps.step
    entry_step = entries.column.astype(np.int64) * steps + entries.step
    base = np.full(len(entries.ranks) * steps, np.iinfo(np.int64).max)
    np.minimum.at(base, gap_step, gaps.start_ns)
    keys = gap_step << _TIME_BITS | (gaps.start_ns - base[gap_step])

    def place(moments: IntArray) -> IntArray:
        since = np.clip(moments - np.minimum(base[entry_step], moments), 0, (1 << _TIME_BITS) - 1)
        return np.searchsorted(keys, entry_step << _TIME_BITS | since)

    first, beyond = place(entries.enqueued_ns), place(entries.last_ns)
    number = np.where(entries.last_ns > entries.enqueued_ns, np.maximum(beyond - first, 0), 0)
    entry = np.repeat(np.arange(len(entries)), number)
    gap = np.arange(len(entry)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
    return Pending(entry, gap)


def blocks(entries: JoinedEntries, gaps: Gaps, pending: Pending, cohort: IntArray) -> npt.NDArray[np.bool_]:
    """Returns for each pair whether this collective blocks this gap, by the same pairs of all ranks and steps."""
    columns = (
        cohort[gaps.column[pending.gap]],
        gaps.owner[pending.gap],
        gaps.turn[pending.gap],
        gaps.part[pending.gap],
        entries.ordinal[pending.entry],
    )
    _, same = np.unique(np.stack([one.astype(np.int64) for one in columns]), axis=1, return_inverse=True)
    same = same.reshape(-1)
    ended_before = gaps.end_ns[pending.gap] < entries.last_ns[pending.entry]
    known, early = np.bincount(same), np.bincount(same, ended_before)
    length = (gaps.end_ns - gaps.start_ns)[pending.gap].astype(np.float64)
    rest = (gaps.end_ns[pending.gap] - entries.last_ns[pending.entry]).astype(np.float64)
    varies = REST_VARIES * _deviation(same, length) + LEAST_VARIATION_NS
    blocking: npt.NDArray[np.bool_] = ((early <= ENDED_BEFORE * known) & (_deviation(same, rest) <= varies))[same]
    return blocking


def _deviation(group: IntArray, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the standard deviation of the values of each group."""
    number = np.maximum(np.bincount(group), 1)
    off = values - (np.bincount(group, values) / number)[group]
    deviation: npt.NDArray[np.float64] = np.sqrt(np.bincount(group, off**2) / number)
    return deviation


def _longest(entries: JoinedEntries, gaps: Gaps, blocking: Pending) -> Waits:
    """Returns for each gap the blocking entry whose last member came last."""
    wait_ns = entries.last_ns[blocking.entry] - gaps.start_ns[blocking.gap]
    order = np.lexsort((-wait_ns, blocking.gap))
    gap, entry, wait_ns = blocking.gap[order], blocking.entry[order], wait_ns[order]
    first = np.append(True, gap[1:] != gap[:-1])[: len(gap)]
    return Waits(entries, gaps, gap[first], entry[first], wait_ns[first])
