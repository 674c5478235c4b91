"""Bounds of the error of each host's clock, by causality: the shifts of its times that contradict no collective.

A gap that waits for a collective cannot end before a member on another host has enqueued it.  So the gaps of one host
bound from above by how much the other one's times may be moved, and those of the other host bound it from below.  Which
gaps wait is not known, and a kind of gaps that does not wait may contradict the others: the shift lies where most kinds
agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import FloatArray, IntArray, combination, ragged
from distprof.merge.collectives.gaps import Gaps
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.pending import ENDED_BEFORE, Pending, all_pending

#: Gaps of a kind that have to be seen on each of two hosts before the kind counts.
FEWEST = 5
#: Ranks of each host whose gaps are looked at: hosts are compared, and their ranks share a clock.
_RANKS_OF_HOST = 2


@dataclass(frozen=True, eq=False)
class HostBounds:
    """By kind of gaps and pair of hosts: between what the shift of the second host, less that of the first, lies."""

    first: IntArray
    second: IntArray
    least_ns: FloatArray
    most_ns: FloatArray

    def next_host(self, known: npt.NDArray[np.bool_]) -> int | None:
        """Returns the host that is not known and has most bounds against known ones; None if there is none."""
        forward, backward = known[self.first] & ~known[self.second], known[self.second] & ~known[self.first]
        new = np.concatenate([self.second[forward], self.first[backward]])
        return int(np.bincount(new).argmax()) if len(new) else None

    def interval_ns(self, host: int, known: npt.NDArray[np.bool_], shifts_ns: FloatArray) -> tuple[float, float]:
        """Returns the narrowest interval of a host's shift in which most of its bounds against known hosts overlap."""
        after, before = (self.second == host) & known[self.first], (self.first == host) & known[self.second]
        of_first, of_second = shifts_ns[self.first[after]], shifts_ns[self.second[before]]
        least = np.concatenate([self.least_ns[after] + of_first, of_second - self.most_ns[before]])
        most = np.concatenate([self.most_ns[after] + of_first, of_second - self.least_ns[before]])
        at = np.concatenate([least, most])
        change = np.repeat([1, -1], [len(least), len(most)])
        order = np.lexsort((-change, at))
        place = int(np.cumsum(change[order]).argmax())
        return float(at[order][place]), float(at[order][place + 1])


@dataclass(frozen=True, eq=False)
class _Rests:
    """From the last enqueue of a collective on another host to the end of a gap that began before it could end."""

    kind: IntArray
    own: IntArray  # the gap's host
    other: IntArray
    rest_ns: IntArray


def host_bounds(entries: JoinedEntries, gaps: Gaps, identity: IntArray, host: IntArray, error_ns: int) -> HostBounds:
    """Returns the bounds; ``host`` is the number of the host of each column, whose clocks are wrong by ``error_ns`` at
    most.
    """
    found = list(_rests(entries, gaps, identity, host, error_ns))
    names = ("kind", "own", "other", "rest_ns")
    rests = _Rests(*(np.concatenate([np.zeros(0, np.int64), *(getattr(one, name) for one in found)]) for name in names))
    low, high = np.minimum(rests.own, rests.other), np.maximum(rests.own, rests.other)
    pair = combination((rests.kind, low, high))
    pairs = int(pair.max(initial=-1)) + 1
    hosts = np.zeros((2, pairs), np.int64)
    hosts[0, pair], hosts[1, pair] = low, high
    of_low = rests.own == low
    most, least = (
        _shortest(pair[of_low], rests.rest_ns[of_low], pairs),
        _shortest(pair[~of_low], rests.rest_ns[~of_low], pairs),
    )
    usable = -least <= most  # also False where one of them is not known
    return HostBounds(hosts[0, usable], hosts[1, usable], -least[usable], most[usable])


def _shortest(pair: IntArray, rest_ns: IntArray, pairs: int) -> FloatArray:
    """Returns by pair the rest that few are below; NaN where too few gaps were seen."""
    order = np.lexsort((rest_ns, pair))
    number = np.bincount(pair, minlength=pairs)
    place = np.cumsum(number) - number + np.floor(ENDED_BEFORE * number).astype(np.int64)
    found = np.full(pairs, np.nan)
    enough = number >= FEWEST
    found[enough] = rest_ns[order][place[enough]]
    return found


def _rests(entries: JoinedEntries, gaps: Gaps, identity: IntArray, host: IntArray, error_ns: int) -> Iterator[_Rests]:
    """Yields the rests of the first host of each collective against all others, and of those against the first one."""
    hosts = _Hosts.of(entries, host[entries.column])
    size = int(identity.max(initial=0)) + 1
    pending = all_pending(replace(entries, last_ns=entries.last_ns + error_ns), gaps)
    chosen = _first_of_hosts(host)[entries.column[pending.entry]]
    some = Pending(pending.entry[chosen], pending.first[chosen], pending.number[chosen])
    for every_entry, every_gap in some.pieces():
        collective = gaps.message[every_gap] < 0
        entry, gap = every_entry[collective], every_gap[collective]
        own, event = host[entries.column[entry]], entries.event[entry]
        first, number = hosts.first[event], hosts.number[event]
        is_first = hosts.host[first] == own
        count = np.where(is_first, number - 1, 1)
        other = ragged(first + is_first, count)
        kind = np.repeat(entries.ordinal[entry].astype(np.int64) * size + identity[gap], count)
        yield _Rests(
            kind, np.repeat(own, count), hosts.host[other], np.repeat(gaps.end_ns[gap], count) - hosts.last_ns[other]
        )


def _first_of_hosts(host: IntArray) -> npt.NDArray[np.bool_]:
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
        new = np.append(True, (np.diff(event) != 0) | (np.diff(of_entry) != 0))[: len(order)]
        number = np.bincount(event[new])
        return cls(of_entry[new], entries.last_here_ns[order][new], np.cumsum(number) - number, number)
