"""Bounds of the error of each host's clock, by causality: the shifts of its times that contradict no collective.

A gap that waits for a collective cannot end before a member on another host has enqueued it.  So the gaps of one host
bound from above by how much the other one's times may be moved, and those of the other host bound it from below.  That
is certain for the kinds of gaps that are known to wait (:mod:`distprof.merge.collectives.known_waits`).  Of all others
that nothing contradicts, most may, and the shift is likely where most of them agree.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from distprof.merge.arrays import BoolArray, FloatArray, IntArray, first_of_each, places_of, ragged
from distprof.merge.collectives.activity import Activity
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.known_waits import Pairs, directions_of
from distprof.merge.collectives.pending import Pending, all_pending
from distprof.plain import dataclass

#: Ranks of each host whose gaps are looked at: hosts are compared, and their ranks share a clock.
_RANKS_OF_HOST = 2


@dataclass(frozen=True, eq=False)
class HostBounds:
    """By kind of gaps and pair of hosts: between what the shift of the second host, less that of the first, lies."""

    first: IntArray
    second: IntArray
    least_ns: IntArray
    most_ns: IntArray
    certain: BoolArray  # whether the kind is known to wait

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

    def reach_ns(self, origin: int, hosts: int, reach_ns: float) -> tuple[FloatArray, FloatArray]:
        """Returns the least and the largest shift of each host against the host ``origin`` that the certain bounds
        allow, from ``reach_ns`` to either side.

        What a host may be moved is at most what another one may, and what the two may be moved against each other.
        """
        first, second, least_ns, most_ns = (
            column[self.certain] for column in (self.first, self.second, self.least_ns, self.most_ns)
        )
        here, there = np.concatenate([first, second]), np.concatenate([second, first])
        high_ns = _nearest(origin, hosts, reach_ns, here, there, np.concatenate([most_ns, -least_ns]))
        low_ns = -_nearest(origin, hosts, reach_ns, here, there, np.concatenate([-least_ns, most_ns]))
        return low_ns, high_ns

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


def _nearest(
    origin: int, hosts: int, reach_ns: float, here: IntArray, there: IntArray, apart_ns: IntArray
) -> FloatArray:
    """Returns how far each host can be from ``origin``, if a host ``there`` can be ``apart_ns`` from one ``here``."""
    found = np.full(hosts, reach_ns)
    found[origin] = 0.0
    for _ in range(hosts):
        before = found.copy()
        np.minimum.at(found, there, before[here] + apart_ns)
        if (found == before).all():
            break
    return found


def host_bounds(activity: Activity, host: IntArray, error_ns: int) -> HostBounds:
    """Returns the bounds; ``host`` is the number of the host of each column, whose clocks are wrong by ``error_ns`` at
    most.
    """
    entries = activity.entries
    hosts = _Hosts.of(entries, host[entries.column])
    pending = all_pending(replace(entries, last_ns=entries.last_ns + error_ns), activity.gaps)
    some = pending.of(_first_of_hosts(host, _RANKS_OF_HOST)[entries.column[pending.entry]])
    rests_at_most = activity.identities * (int(host.max(initial=0)) + 1) * len(entries.iterations)
    kinds = some.by_ordinal(entries, rests_at_most)
    found = [_bounds(_pairs(of_kinds, activity, host, hosts)) for of_kinds in kinds]
    columns = (("first", int), ("second", int), ("least_ns", int), ("most_ns", int), ("certain", bool))
    return HostBounds(
        *(np.concatenate([np.zeros(0, kind), *(getattr(one, name) for one in found)]) for name, kind in columns)
    )


def _bounds(pairs: Pairs) -> HostBounds:
    """Returns the bounds of some kinds from all of their pairs."""
    found, known = directions_of(pairs)
    up = np.flatnonzero((found.own < found.other) & (found.back >= 0) & ~found.contradicted())
    least_ns = -found.rest_ns[found.back[up]]
    return HostBounds(found.own[up], found.other[up], least_ns, found.rest_ns[up], known[up])


def _pairs(pending: Pending, activity: Activity, host: IntArray, hosts: _Hosts) -> Pairs:
    """Returns the pairs: of the first host of each collective against all others, of those against the first one, and
    of each against its own.
    """
    entries, gaps = activity.entries, activity.gaps
    of_first = _first_of_hosts(host, 1)
    parts = []
    for every_entry, every_gap in pending.pieces():
        collective = gaps.message[every_gap] < 0
        entry, gap = every_entry[collective], every_gap[collective]
        own, event = host[entries.column[entry]], entries.event[entry]
        first, number = hosts.first[event], hosts.number[event]
        is_first = hosts.host[first] == own
        count = np.where(is_first, number - 1, 1)
        here = np.flatnonzero(gaps.start_ns[gap] < entries.last_here_ns[entry])
        pair = np.concatenate([np.repeat(np.arange(len(gap)), count), here])
        other = ragged(first + is_first, count)
        came_ns = np.concatenate([hosts.last_ns[other], entries.last_here_ns[entry[here]]])
        kind = entries.ordinal[entry].astype(np.int64) * activity.identities + activity.identity[gap]
        end_ns = gaps.end_ns[gap]
        rest_ns, length_ns = end_ns[pair] - came_ns, (end_ns - gaps.start_ns[gap])[pair]
        others = np.concatenate([hosts.host[other], own[here]])
        parts.append((kind[pair], own[pair], others, rest_ns, length_ns, of_first[gaps.column[gap]][pair]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _first_of_hosts(host: IntArray, ranks: int) -> BoolArray:
    """Returns by column whether it is one of the first ``ranks`` of its host."""
    order = np.argsort(host, kind="stable")
    number = np.bincount(host)
    place = np.arange(len(host)) - np.repeat(np.cumsum(number) - number, number)
    found = np.zeros(len(host), bool)
    found[order] = place < ranks
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
