"""Which kinds of gaps are known to wait for a collective, whatever the clocks of hosts say.

A gap that waits for a member is the longer, the later that member comes.  If it does not wait, its length has nothing
to do with that, and lengths of different steps could as well be exchanged.  The chance is computed, exactly, that none
of them would end earlier before that member came than any does, if they were exchanged at random.  That needs no
common clock: a constant error moves all members of a host alike.

pairs of a gap and a collective -> by kind, own host and other host: the least rest, and the chance -> kinds that wait
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from distprof.merge.arrays import BoolArray, FloatArray, IntArray, first_of_each
from distprof.merge.collectives.pending import ENDED_BEFORE
from distprof.plain import dataclass

#: Gaps of a kind that have to be seen on a host before the kind counts.
FEWEST = 5
#: A kind is known to wait if the chance is below 10 to the power of minus so much for each step, and for at least so
#: many.  Of 95 jobs on a busy machine, their ranks on hosts in seven ways, no bound was wrong at a quarter of it.
_POWER_OF_STEP = 0.2
_LEAST_STEPS = 10


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a gap of one host and the last member of another one, or of its own, for which it may wait."""

    kind: IntArray
    own: IntArray
    other: IntArray
    rest_ns: IntArray  # from that member's coming to the end of the gap
    length_ns: IntArray  # of the gap
    of_first: BoolArray  # whether it is of the first rank of its host: pairs of several ranks depend on each other


@dataclass(frozen=True, eq=False)
class Directions:
    """By direction, ascending: what the gaps of one kind on the host ``own`` say of the members on the host ``other``.

    Only directions with enough gaps are there.
    """

    kind: IntArray
    own: IntArray
    other: IntArray
    rest_ns: IntArray  # few gaps have less

    @cached_property
    def back(self) -> IntArray:
        """Returns the place of the opposite direction of the same kind; -1: not there."""
        hosts = int(max(self.own.max(initial=0), self.other.max(initial=0))) + 1
        there = (self.kind * hosts + self.own) * hosts + self.other
        wanted = (self.kind * hosts + self.other) * hosts + self.own
        place = np.minimum(np.searchsorted(there, wanted), max(len(there) - 1, 0))
        return np.where(there[place] == wanted, place, -1)

    def contradicted(self) -> BoolArray:
        """Returns by direction whether gaps of its kind cannot wait: on some host they end before the last member there
        came, or of two hosts each would have to be behind the other one.
        """
        against = (self.back >= 0) & (self.rest_ns + self.rest_ns[self.back] < 0)  # on one host twice the same
        return self._kind_has(against)

    def seen_at_home(self) -> BoolArray:
        """Returns by direction whether gaps of its kind were seen together with members on their own host."""
        return self._kind_has(self.own == self.other)

    def _kind_has(self, some: BoolArray) -> BoolArray:
        found: BoolArray = (np.bincount(self._kind_number, some) > 0)[self._kind_number]
        return found

    @cached_property
    def _kind_number(self) -> IntArray:
        return np.cumsum(first_of_each(self.kind)) - 1

    def below(self, chance: FloatArray, limit: FloatArray) -> BoolArray:
        """Returns by direction whether log10 of a chance is below a limit in any direction of its kind, for as many
        trials as the kind has directions.
        """
        least = np.zeros(int(self._kind_number.max(initial=-1)) + 1)
        np.minimum.at(least, self._kind_number, chance - limit)
        found: BoolArray = (least + np.log10(np.bincount(self._kind_number)) < 0)[self._kind_number]
        return found


def directions_of(pairs: Pairs) -> tuple[Directions, BoolArray]:
    """Returns the directions, and which of them have a kind that is known to wait.

    Lengths alone do not tell for which collective a gap waits, of several that a member joins one after another.  So a
    kind has to be seen on a host with several ranks, too, where it ends before none of them came.
    """
    hosts = int(max(pairs.own.max(initial=0), pairs.other.max(initial=0))) + 1
    direction = (pairs.kind * hosts + pairs.own) * hosts + pairs.other
    order = np.lexsort((pairs.rest_ns, direction))
    first = np.flatnonzero(first_of_each(direction[order]))
    number = np.diff(first, append=len(order))
    first, number = first[number >= FEWEST], number[number >= FEWEST]
    there = direction[order][first]
    least_ns = pairs.rest_ns[order][first + np.floor(ENDED_BEFORE * number).astype(np.int64)]
    found = Directions(there // hosts**2, there // hosts % hosts, there % hosts, least_ns)
    may_wait = found.seen_at_home() & ~found.contradicted()
    if not may_wait.any():
        return found, may_wait
    place = np.minimum(np.searchsorted(there, direction), len(there) - 1)
    chosen = pairs.of_first & may_wait[place] & (there[place] == direction) & (pairs.rest_ns >= least_ns[place])
    place, length_ns = place[chosen], pairs.length_ns[chosen]
    needed_ns = length_ns - pairs.rest_ns[chosen] + least_ns[place]
    return found, may_wait & _unlikely(found, place, length_ns, needed_ns)


def _unlikely(found: Directions, place: IntArray, length_ns: IntArray, needed_ns: IntArray) -> BoolArray:
    """Returns by direction whether the lengths of its kind are unlikely if it does not wait, in any pair of hosts.

    The chance that the product of two chances is at most c is c (1 - ln c); of one, which is its own opposite, it is c.
    """
    steps = np.bincount(place, minlength=len(found.kind))
    of_one = log10_chance(place, length_ns, needed_ns, steps)
    both = (found.back >= 0) & (found.own != found.other)
    product = of_one + np.where(both, of_one[found.back], 0)
    chance = product + np.log10(np.where(both, 1 - product * math.log(10), 1))
    return found.below(chance, -_POWER_OF_STEP * np.maximum(steps, _LEAST_STEPS))


def log10_chance(group: IntArray, values: IntArray, needed: IntArray, sizes: IntArray) -> FloatArray:
    """Returns by group log10 of the share of the permutations of its values in which each is at least what is needed
    in its place, as they are in their own places; ``sizes`` are the numbers of values.

    The largest need is met by some of the values, the next one by one less of those that meet it, and so on.
    """
    of_both, is_need = np.concatenate([group, group]), np.repeat([False, True], len(group))
    order = np.lexsort((is_need, -np.concatenate([values, needed]), of_both))
    of_both, is_need = of_both[order], is_need[order]
    of_need = of_both[is_need]
    before = (np.cumsum(sizes) - sizes)[of_need]
    met, larger = np.cumsum(~is_need)[is_need] - before, np.arange(len(of_need)) - before
    share = np.log10((met - larger) / (sizes[of_need] - larger))
    return np.bincount(of_need, share, len(sizes)).astype(np.float64)
