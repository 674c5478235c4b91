"""Bounds of the error of each host's clock, by causality: the shifts of its times that contradict no collective.

A gap that waits for a collective cannot end before a member on another host has enqueued it.  So the gaps of one host
bound from above by how much the other one's times may be moved, and those of the other host bound it from below.  Which
gaps wait is not known, and a kind of gaps that does not wait may contradict the others: the shift lies where most kinds
agree.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from distprof.merge.arrays import BoolArray, FloatArray, IntArray, first_of_each, places_of, ragged
from distprof.merge.collectives.activity import Activity
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.pending import ENDED_BEFORE, Pending, all_pending
from distprof.plain import dataclass

#: Gaps of a kind that have to be seen on each of two hosts before the kind counts.
FEWEST = 5
#: Ranks of each host whose gaps are looked at: hosts are compared, and their ranks share a clock.
_RANKS_OF_HOST = 2


@dataclass(frozen=True, eq=False)
class HostBounds:
    """By kind of gaps and pair of hosts: between what the shift of the second host, less that of the first, lies."""

    first: IntArray
    second: IntArray
    least_ns: IntArray
    most_ns: IntArray

    @cached_property
    def _rows(self) -> list[IntArray]:
        """The places of the bounds of each host."""
        both = np.concatenate([self.first, self.second])
        return [places % len(self.first) for places in places_of(both, int(both.max(initial=0)) + 1)]

    def neighbours(self, host: int) -> IntArray:
        """Returns the other host of each bound of this host."""
        rows = self._rows[host] if host < len(self._rows) else np.zeros(0, np.int64)
        found: IntArray = self.first[rows] + self.second[rows] - host
        return found

    def interval_ns(self, host: int, known: BoolArray, shifts_ns: FloatArray) -> tuple[float, float]:
        """Returns the narrowest interval of a host's shift in which most of its bounds against known hosts overlap."""
        rows = self._rows[host]
        first, second, least_ns, most_ns = (
            column[rows] for column in (self.first, self.second, self.least_ns, self.most_ns)
        )
        after, before = (second == host) & known[first], (first == host) & known[second]
        of_first, of_second = shifts_ns[first[after]], shifts_ns[second[before]]
        least = np.concatenate([least_ns[after] + of_first, of_second - most_ns[before]])
        most = np.concatenate([most_ns[after] + of_first, of_second - least_ns[before]])
        at = np.concatenate([least, most])
        change = np.repeat([1, -1], [len(least), len(most)])
        order = np.lexsort((-change, at))
        place = int(np.cumsum(change[order]).argmax())
        return float(at[order][place]), float(at[order][place + 1])


def host_bounds(activity: Activity, host: IntArray, error_ns: int) -> HostBounds:
    """Returns the bounds; ``host`` is the number of the host of each column, whose clocks are wrong by ``error_ns`` at
    most.
    """
    entries = activity.entries
    hosts = _Hosts.of(entries, host[entries.column])
    pending = all_pending(replace(entries, last_ns=entries.last_ns + error_ns), activity.gaps)
    some = pending.of(_first_of_hosts(host)[entries.column[pending.entry]])
    rests_at_most = activity.identities * (int(host.max(initial=0)) + 1) * len(entries.iterations)
    kinds = some.by_ordinal(entries, rests_at_most)
    found = [_bounds(*_rests(of_kinds, activity, host, hosts)) for of_kinds in kinds]
    names = ("first", "second", "least_ns", "most_ns")
    return HostBounds(*(np.concatenate([_NONE, *(getattr(one, name) for one in found)]) for name in names))


_NONE = np.zeros(0, np.int64)


def _bounds(kind: IntArray, own: IntArray, other: IntArray, rest_ns: IntArray) -> HostBounds:
    """Returns the bounds of some kinds from all rests of these: ``rest_ns`` is from the last enqueue of a collective on
    host ``other`` to the end of a gap of host ``own`` that began before it could end.
    """
    low, high = np.minimum(own, other), np.maximum(own, other)
    hosts = int(high.max(initial=0)) + 1
    pair = (kind * hosts + low) * hosts + high
    of_low = own == low
    of_most, most_ns = _shortest(pair[of_low], rest_ns[of_low])
    of_least, least_ns = _shortest(pair[~of_low], rest_ns[~of_low])
    both, in_most, in_least = np.intersect1d(of_most, of_least, assume_unique=True, return_indices=True)
    most_ns, least_ns = most_ns[in_most], -least_ns[in_least]
    usable = least_ns <= most_ns
    first, second = np.divmod(both[usable] % hosts**2, hosts)
    return HostBounds(first, second, least_ns[usable], most_ns[usable])


def _shortest(pair: IntArray, rest_ns: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the pairs of which enough gaps were seen, ascending, and of each the rest that few are below."""
    order = np.lexsort((rest_ns, pair))
    first = np.flatnonzero(np.diff(pair[order], prepend=-1))
    number = np.diff(first, append=len(order))
    enough = number >= FEWEST
    place = first + np.floor(ENDED_BEFORE * number).astype(np.int64)
    return pair[order][first[enough]], rest_ns[order][place[enough]]


def _rests(pending: Pending, activity: Activity, host: IntArray, hosts: _Hosts) -> tuple[IntArray, ...]:
    """Returns kind, own host, other host and rest of the pairs: of the first host of each collective against all
    others, and of those against the first one.
    """
    entries, gaps = activity.entries, activity.gaps
    parts = []
    for every_entry, every_gap in pending.pieces():
        collective = gaps.message[every_gap] < 0
        entry, gap = every_entry[collective], every_gap[collective]
        own, event = host[entries.column[entry]], entries.event[entry]
        first, number = hosts.first[event], hosts.number[event]
        is_first = hosts.host[first] == own
        count = np.where(is_first, number - 1, 1)
        other = ragged(first + is_first, count)
        kind = entries.ordinal[entry].astype(np.int64) * activity.identities + activity.identity[gap]
        rest_ns = np.repeat(gaps.end_ns[gap], count) - hosts.last_ns[other]
        parts.append((np.repeat(kind, count), np.repeat(own, count), hosts.host[other], rest_ns))
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _first_of_hosts(host: IntArray) -> BoolArray:
    """Returns by column whether it is one of the first ranks of its host."""
    order = np.argsort(host, kind="stable")
    number = np.bincount(host)
    place = np.arange(len(host)) - np.repeat(np.cumsum(number) - number, number)
    found = np.zeros(len(host), bool)
    found[order] = place < _RANKS_OF_HOST
    return found


@dataclass(frozen=True, eq=False)
class _Hosts:
    """The hosts of each collective, ascending, and the last enqueue there; by event: where its first one is."""

    host: IntArray
    last_ns: IntArray
    first: IntArray
    number: IntArray

    @classmethod
    def of(cls, entries: JoinedEntries, host: IntArray) -> _Hosts:
        order = np.lexsort((host, entries.event))
        event, of_entry = entries.event[order], host[order]
        new = first_of_each(event, of_entry)
        number = np.bincount(event[new])
        return cls(of_entry[new], entries.last_here_ns[order][new], np.cumsum(number) - number, number)
