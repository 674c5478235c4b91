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
from functools import cached_property

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
#: Entries that are looked at together, so that memory stays bounded.
_AT_ONCE = 200_000
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
    search = _PendingSearch(entries, gaps)
    cohort = np.array([analysis.cohorts[rank] for rank in entries.ranks], np.int64)
    learned = _Learned(entries, gaps, gap_identities(gaps, cohort))
    pieces = [slice(start, start + _AT_ONCE) for start in range(0, max(len(entries), 1), _AT_ONCE)]
    for piece in pieces:
        learned.add(search.pending(piece))
    found = [learned.blocking(search.pending(piece)) for piece in pieces]
    blocking = Pending(*(np.concatenate(own) for own in zip(*((one.entry, one.gap) for one in found), strict=True)))
    return _longest(entries, gaps, blocking)


def gap_identities(gaps: Gaps, cohort: IntArray) -> IntArray:
    """Returns for each gap a number that is equal for the same gap of ranks of one cohort, in all steps."""
    identity = cohort[gaps.column]
    for column in (gaps.owner, gaps.turn, gaps.part):
        _, place = np.unique(column, return_inverse=True)
        _, identity = np.unique(identity * (int(place.max(initial=0)) + 1) + place, return_inverse=True)
    return identity.astype(np.int64)


class _PendingSearch:
    """Finds the gaps that began while an entry was pending: enqueued, and its last member had not come."""

    def __init__(self, entries: JoinedEntries, gaps: Gaps) -> None:
        self._entries = entries
        steps = len(entries.iterations)
        gap_step = gaps.column.astype(np.int64) * steps + gaps.step
        self._entry_step = entries.column.astype(np.int64) * steps + entries.step
        self._base = np.full(len(entries.ranks) * steps, np.iinfo(np.int64).max)
        np.minimum.at(self._base, gap_step, gaps.start_ns)
        self._keys = gap_step << _TIME_BITS | (gaps.start_ns - self._base[gap_step])

    def pending(self, piece: slice) -> Pending:
        """Returns the pairs of some entries."""
        enqueued, last = self._entries.enqueued_ns[piece], self._entries.last_ns[piece]
        step = self._entry_step[piece]
        first, beyond = self._place(enqueued, step), self._place(last, step)
        number = np.where(last > enqueued, np.maximum(beyond - first, 0), 0)
        entry = np.repeat(np.arange(piece.start, piece.start + len(number)), number)
        gap = np.arange(len(entry)) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
        return Pending(entry, gap)

    def _place(self, moments: IntArray, step: IntArray) -> IntArray:
        since = np.clip(moments - np.minimum(self._base[step], moments), 0, (1 << _TIME_BITS) - 1)
        found: IntArray = np.searchsorted(self._keys, step << _TIME_BITS | since)
        return found


class _Learned:
    """Learns which collectives block which gaps, from the pairs of all ranks and steps.

    A *kind* of pair is a gap's identity and the number of the collective in its step.
    """

    def __init__(self, entries: JoinedEntries, gaps: Gaps, identity: IntArray) -> None:
        self._entries, self._gaps, self._identity = entries, gaps, identity
        self._ordinals = int(entries.ordinal.max(initial=0)) + 1
        self._pieces: list[tuple[IntArray, npt.NDArray[np.float64]]] = []

    def add(self, pairs: Pending) -> None:
        """Adds, by kind: pairs, gaps that ended before the last member came, lengths, rests, and their squares."""
        length, rest = self._times_ms(pairs)
        kinds, place = np.unique(self._kind(pairs), return_inverse=True)
        weights = (np.ones(len(rest)), (rest < 0).astype(np.float64), length, length**2, rest, rest**2)
        self._pieces.append((kinds, np.stack([np.bincount(place, weight, len(kinds)) for weight in weights])))

    @cached_property
    def _blocking_kinds(self) -> IntArray:
        """Returns the kinds whose collective blocks the gap, ascending."""
        kinds, place = np.unique(np.concatenate([own for own, _ in self._pieces]), return_inverse=True)
        every = np.concatenate([sums for _, sums in self._pieces], axis=1)
        known, early, *moments = (np.bincount(place, sums, len(kinds)) for sums in every)
        length, rest = (
            np.sqrt(np.maximum(squares / known - (sums / known) ** 2, 0))
            for sums, squares in (moments[:2], moments[2:])
        )
        blocks = (early <= ENDED_BEFORE * known) & (rest <= REST_VARIES * length + LEAST_VARIATION_NS / 1e6)
        found: IntArray = kinds[blocks]
        return found

    def blocking(self, pairs: Pending) -> Pending:
        """Returns the pairs whose collective blocks the gap and came to its end in it."""
        _, rest = self._times_ms(pairs)
        pairs = pairs.those(rest >= 0)
        return pairs.those(np.isin(self._kind(pairs), self._blocking_kinds))

    def _kind(self, pairs: Pending) -> IntArray:
        kind: IntArray = self._identity[pairs.gap] * self._ordinals + self._entries.ordinal[pairs.entry]
        return kind

    def _times_ms(self, pairs: Pending) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns the length of the gap, and what is left of it when the last member has come."""
        end = self._gaps.end_ns[pairs.gap]
        return (end - self._gaps.start_ns[pairs.gap]) / 1e6, (end - self._entries.last_ns[pairs.entry]) / 1e6


def _longest(entries: JoinedEntries, gaps: Gaps, blocking: Pending) -> Waits:
    """Returns for each gap the blocking entry whose last member came last."""
    wait_ns = entries.last_ns[blocking.entry] - gaps.start_ns[blocking.gap]
    order = np.lexsort((-wait_ns, blocking.gap))
    gap, entry, wait_ns = blocking.gap[order], blocking.entry[order], wait_ns[order]
    first = np.append(True, gap[1:] != gap[:-1])[: len(gap)]
    return Waits(entries, gaps, gap[first], entry[first], wait_ns[first])
