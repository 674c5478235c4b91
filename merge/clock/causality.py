"""Causality, which refuses wrong offsets: nothing that needs all members of a group ends before the last one came.

It can refute a measured offset, and tells too little to estimate one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from distprof.plain import dataclass


@dataclass(frozen=True)
class Interval:
    """One member's part in a collective or message, on the reference's clock, in ns."""

    host: str
    enqueued_ns: int
    completed_ns: int | None  # None where that is not known, or where this member may complete without the others
    bound_ns: int


def contradictions(collectives: Iterable[Sequence[Interval]]) -> Counter[tuple[str, str]]:
    """Returns how often a member on the first host completed before one on the second had enqueued, beyond both
    bounds.
    """
    found: Counter[tuple[str, str]] = Counter()
    for members in collectives:
        last = max(members, key=lambda member: member.enqueued_ns - member.bound_ns, default=None)
        for member in members:
            if last is None or member.completed_ns is None or member.host == last.host:
                continue
            if member.completed_ns + member.bound_ns < last.enqueued_ns - last.bound_ns:
                found[member.host, last.host] += 1
    return found


def refused_hosts(found: Counter[tuple[str, str]], reference: str) -> frozenset[str]:
    """Returns the hosts whose offsets cannot be right: of each contradicting pair the one that is in most of them, and
    never the reference, whose clock is right by definition.
    """
    refused: set[str] = set()
    left = dict(found)
    while left:
        times: Counter[str] = Counter()
        for pair, count in left.items():
            for host in set(pair) - {reference}:
                times[host] += count
        if not times:
            break
        worst = max(sorted(times), key=times.__getitem__)
        refused.add(worst)
        left = {pair: count for pair, count in left.items() if worst not in pair}
    return frozenset(refused)
