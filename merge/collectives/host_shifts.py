"""Errors of the clocks of hosts against each other, found from the collectives that all members wait for.

Causality says between what a shift lies (:mod:`distprof.merge.collectives.host_bounds`): this is its bound, as far as
gaps are known to wait.  Inside of that, members of a collective that waits go on at about one moment: a host whose gaps
end later has a clock that is ahead.  What follows the wait differs, too, so this is likely and bounds nothing.  Which
gaps seem to wait is learned within each host, whose ranks share a clock.  The first rank of a host to go on stands for
it: a slow one takes longer after the wait.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from distprof.merge.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    combination,
    first_of_each,
    largest_of_each,
    places_of,
    smallest_of_each,
)
from distprof.merge.collectives.activity import Activity
from distprof.merge.collectives.host_bounds import HostBounds, host_bounds
from distprof.merge.collectives.join import JoinedEntries
from distprof.merge.collectives.known_waits import FEWEST
from distprof.merge.collectives.pending import ENDED_BEFORE, all_pending
from distprof.merge.stats import middle, quantile
from distprof.plain import dataclass

#: What follows the wait in a gap blurs its end: of all kinds those with the least of it are used, and all below this.
_SHORT_REST_NS = 500_000
_SHORTEST_SHARE = 0.3
#: The moments count where they are so many times more exact than causality, which ranks that work after a wait do not
#: mislead.
_SO_MUCH_NARROWER = 4
#: How near to the truth the moments bring clocks at which hosts come to collectives, and in how many rounds.
_ROUGH_NS = 100_000_000
_ROUNDS = 10
#: The standard error of a median is this times the median absolute deviation, over the root of the number of values.
_STANDARD_ERROR = 1.2533 * 1.4826


@dataclass(frozen=True, eq=False)
class HostShifts:
    """What has to be added to the times of each host, by number."""

    shift_ns: IntArray  # 0 for the origin
    error_ns: int  # the error that is likely to be left between two hosts
    bound_ns: int | None  # the largest error that may be left between two; None where collectives do not tell


class WrongClocksError(Exception):
    """Collectives contradict how exactly clocks were compared."""


class _Moments:
    """When hosts went on after collectives that they waited for: the mean of the known hosts at each moment."""

    def __init__(self, moment: IntArray, host: IntArray, end_ns: IntArray, hosts: int) -> None:
        """``moment`` is equal for the gaps of one kind and one collective; ``end_ns`` is that of the first rank of the
        host.
        """
        self._moment, self._end_ns = moment, end_ns
        self._rows = places_of(host, hosts)
        self._total = np.zeros(int(moment.max(initial=-1)) + 1)
        self._number = np.zeros(len(self._total))

    def add(self, host: int, shift_ns: float) -> None:
        """Adds a host whose shift is known now; a host has one end at a moment."""
        rows = self._rows[host]
        self._total[self._moment[rows]] += self._end_ns[rows] + shift_ns
        self._number[self._moment[rows]] += 1

    def later_ns(self, host: int) -> FloatArray:
        """Returns by how much a host went on later than known ones, at each moment that it shares with them."""
        rows = self._rows[host]
        shared = rows[self._number[self._moment[rows]] > 0]
        moment = self._moment[shared]
        found: FloatArray = self._end_ns[shared] - self._total[moment] / self._number[moment]
        return found


def host_shifts(activity: Activity, host: IntArray, error_ns: int | None, origin: int = 0) -> HostShifts | None:
    """Returns the shifts against the host ``origin``; None where hosts do not wait for each other often enough.

    ``host`` is the number of the host of each column, from 0; their clocks are wrong by ``error_ns`` at most, or by any
    time if it is None.  Raises WrongClocksError where they are wrong by more.
    """
    if error_ns is not None:
        return _shifts_within(activity, host, origin, error_ns, error_ns)
    roughly = _rough_shifts(activity.entries, host)
    roughly -= roughly[origin]
    found = _shifts_within(_shifted(activity, roughly[host]), host, origin, _ROUGH_NS, math.inf, roughly)
    return None if found is None else replace(found, shift_ns=found.shift_ns + roughly)


def _rough_shifts(entries: JoinedEntries, host: IntArray) -> IntArray:
    """Returns the shifts with which hosts come to their collectives at about the same time, in the median."""
    of_entry, came = host[entries.column], entries.last_here_ns - int(entries.last_here_ns.min())
    number = np.bincount(entries.event)[entries.event]
    shifts = np.zeros(int(host.max()) + 1)
    of_host = places_of(of_entry, len(shifts))
    for _ in range(_ROUNDS):
        placed = came + shifts[of_entry]
        later = placed - np.bincount(entries.event, placed)[entries.event] / number
        shifts -= [float(middle(later[own])) for own in of_host]
    found: IntArray = np.rint(shifts).astype(np.int64)
    return found


def _shifted(activity: Activity, shift_ns: IntArray) -> Activity:
    """Returns the activity with ``shift_ns``, by column, added to its times."""
    entries, gaps = activity.entries, activity.gaps
    of_entry, of_gap = shift_ns[entries.column], shift_ns[gaps.column]
    here = entries.last_here_ns + of_entry
    last = largest_of_each(entries.event, here, int(entries.event.max()) + 1)
    enqueued = entries.enqueued_ns + of_entry
    return replace(
        activity,
        entries=replace(entries, enqueued_ns=enqueued, last_here_ns=here, last_ns=last[entries.event]),
        gaps=replace(gaps, start_ns=gaps.start_ns + of_gap, end_ns=gaps.end_ns + of_gap),
    )


def _shifts_within(
    activity: Activity, host: IntArray, origin: int, error_ns: int, reach_ns: float, moved_ns: IntArray | None = None
) -> HostShifts | None:
    """Returns the shifts of clocks that are wrong by ``error_ns`` at most.

    Those that may be wrong by any time were ``moved_ns``: a host that may as well be right stays as it was.
    """
    hosts = int(host.max(initial=0)) + 1
    bounds = host_bounds(activity, host, error_ns)
    low, high = bounds.reach_ns(origin, hosts, reach_ns)
    if (low > high).any():
        raise WrongClocksError
    found = _likely_shifts(bounds, _moments_of_waits(activity, host), origin, hosts)
    if found is None:
        return None
    likely, errors = found
    if moved_ns is not None:
        likely = np.where(np.abs(likely + moved_ns) <= errors, -moved_ns, likely)
    shifts = np.rint(np.clip(likely, low, high))
    farthest = min(np.sort(np.maximum(shifts - low, high - shifts))[-2:].sum(), reach_ns + np.ptp(shifts))
    bound_ns = math.ceil(farthest) if math.isfinite(farthest) else None
    return HostShifts(shifts.astype(np.int64), round(float(np.sort(errors)[-2:].sum())), bound_ns)


def _likely_shifts(
    bounds: HostBounds, moments: _Moments, origin: int, hosts: int
) -> tuple[FloatArray, FloatArray] | None:
    """Returns the shifts and their errors, host after host: the next one is that with the most bounds against those
    that are known.
    """
    shifts, errors = np.zeros(hosts), np.zeros(hosts)
    known = np.zeros(hosts, bool)
    reached = np.zeros(hosts, np.int64)  # the bounds of each host that is not known against known ones
    one = origin
    while True:
        known[one] = True
        moments.add(one, shifts[one])
        reached += np.bincount(bounds.neighbours(one), minlength=hosts)
        reached[known] = 0
        one = int(reached.argmax())
        if not reached[one]:
            return (shifts, errors) if known.all() else None
        shifts[one], errors[one] = _between(bounds.interval_ns(one, known, shifts), moments.later_ns(one))


def _between(interval_ns: tuple[float, float], later_ns: FloatArray) -> tuple[float, float]:
    """Returns a host's likely shift within the interval that causality gives, and its error."""
    low, high = interval_ns
    if len(later_ns) >= FEWEST and (error := _error(later_ns)) < (high - low) / 2 / _SO_MUCH_NARROWER:
        return min(max(-float(middle(later_ns)), low), high), error
    return (low + high) / 2, (high - low) / 2


def _error(values: FloatArray) -> float:
    """Returns three standard errors of the median."""
    deviation = float(middle(np.abs(values - middle(values))))
    return 3 * _STANDARD_ERROR * deviation / math.sqrt(len(values))


def _moments_of_waits(activity: Activity, host: IntArray) -> _Moments:
    """Returns when the first rank of each host goes on after a collective."""
    entries, gaps = activity.entries, activity.gaps
    within = replace(entries, last_ns=entries.last_here_ns)
    pairs = list(all_pending(within, gaps).pieces())
    entry, gap = (np.concatenate([np.zeros(0, np.int64), *(pair[side] for pair in pairs)]) for side in (0, 1))
    kind = combination((entries.ordinal[entry], activity.identity[gap]))
    rest_ns = gaps.end_ns[gap] - within.last_ns[entry]
    chosen = _kinds_that_wait(kind, rest_ns)[kind] & (rest_ns >= 0) & (gaps.message[gap] < 0)
    entry, gap, kind = entry[chosen], gap[chosen], kind[chosen]
    moment, of_host, end_ns = combination((entries.event[entry], kind)), host[gaps.column[gap]], gaps.end_ns[gap]
    order = np.lexsort((end_ns, of_host, moment))
    moment, of_host, end_ns = moment[order], of_host[order], end_ns[order]
    first = first_of_each(moment, of_host)
    return _Moments(moment[first], of_host[first], end_ns[first], int(host.max(initial=0)) + 1)


def _kinds_that_wait(kind: IntArray, rest_ns: IntArray) -> BoolArray:
    """Returns by kind whether its gaps last until the last member of their own host has come, and end soon after it."""
    seen = np.bincount(kind)
    waits = (seen >= FEWEST) & (np.bincount(kind, rest_ns < 0) <= ENDED_BEFORE * seen)
    if not waits.any():
        return waits
    after = rest_ns >= 0
    shortest = smallest_of_each(kind[after], rest_ns[after], len(seen))
    most = max(quantile(shortest[waits], _SHORTEST_SHARE), _SHORT_REST_NS)
    found: BoolArray = waits & (shortest <= most)
    return found
