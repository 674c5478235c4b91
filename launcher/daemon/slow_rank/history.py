"""The last looks at the ranks of a node: how often each was the slowest, and whether that is more than chance."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from distprof.launcher.daemon.slow_rank.arrivals import SLOW_SHARE, Look

#: Iterations that are counted: the last ones in which one rank was seen to be the slowest.
LAST = 50
#: Looks are kept for this time, and longer until there are so many iterations.
_KEPT_S = 240.0
#: What is lost is the mean of looks of this time, and of so many iterations at least.
_RECENT_S, _RECENT = 60.0, 10
#: A rank begins to be named with so many counted iterations, if it was the slowest in this share of them, if equal
#: ranks are so seldom that unequal, and if this share of the time is lost.
LEAST = 20
_BEGIN, _CHANCE, _BEGIN_LOST = 0.5, 1e-6, SLOW_SHARE
#: It is named until one of these limits is passed, which are far from those above: lines must not come again and again.
_END, _CHANCE_END, _END_LOST = 1 / 3, 0.05, 0.02


@dataclass(frozen=True)
class Slowest:
    """A rank that is the slowest again and again."""

    rank: int
    iterations: int  # in which it was the slowest
    sampled: int  # the last iterations in which one rank was seen to be the slowest
    lost: float  # the share of the time in which others waited for it, or which its iterations lost


@dataclass(frozen=True)
class RankLooks:
    """What the last looks say of one rank."""

    slowest: int  # iterations in which it was the slowest
    sampled: int  # iterations in which one rank was seen to be the slowest
    wait_share: float  # share of the looks in which it waited for another rank
    is_named: bool  # whether it is the slowest again and again


@dataclass
class _Iteration:
    """The looks at one iteration."""

    number: int
    at_s: float
    looks: int = 0
    lost: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))  # rank -> sum over looks
    compared: dict[int, int] = field(default_factory=dict)  # rank -> with how many, itself included
    waiting: Counter[int] = field(default_factory=Counter)  # rank -> looks in which it waited
    slowest: int | None = None  # once the iteration is over

    def add(self, look: Look) -> None:
        self.looks += 1
        self.waiting.update(look.waiting)
        if look.slowest is not None:
            self.lost[look.slowest] += look.lost
            self.compared[look.slowest] = min(look.compared, self.compared.get(look.slowest, look.compared))

    def end(self) -> None:
        """Decides which rank was the slowest: the one for which most was lost, if there is one."""
        most = sorted(self.lost.items(), key=lambda item: -item[1])
        if len(most) == 1 or (most and most[0][1] > most[1][1]):
            self.slowest = most[0][0]


class History:
    """Takes looks in their order."""

    def __init__(self) -> None:
        self._iterations: deque[_Iteration] = deque()
        self.named: Slowest | None = None  # the rank that is named now

    def add(self, look: Look, now_s: float) -> None:
        """Takes a look; ``now_s`` is its time."""
        kept = self._iterations
        if not kept or kept[-1].number != look.iteration:
            if kept:
                kept[-1].end()
                if self.named is not None or kept[-1].slowest is not None:  # else nothing speaks for a rank
                    self.named = self._judged(now_s)
            kept.append(_Iteration(look.iteration, now_s))
        kept[-1].add(look)
        while len(kept) > LAST and kept[0].at_s < now_s - _KEPT_S:
            kept.popleft()

    def looks(self, ranks: Iterable[int], now_s: float) -> dict[int, RankLooks]:
        """Returns what the looks say of each of these ranks; nothing before the first one."""
        counts, recent = self._counts(), list(self._recent(now_s))
        total = sum(one.looks for one in recent)
        waiting = Counter[int]()
        for one in recent:
            waiting.update(one.waiting)
        sampled = sum(counts.values())
        named = self.named.rank if self.named is not None else None
        return {rank: RankLooks(counts[rank], sampled, waiting[rank] / total, rank == named) for rank in ranks if total}

    def _counts(self) -> Counter[int]:
        """Returns of each rank in how many of the counted iterations it was the slowest."""
        sampled = (one.slowest for one in reversed(self._iterations) if one.slowest is not None)
        return Counter(islice(sampled, LAST))

    def _recent(self, now_s: float) -> Iterator[_Iteration]:
        for age, one in enumerate(reversed(self._iterations)):
            if age >= _RECENT and one.at_s < now_s - _RECENT_S:
                return
            yield one

    def _judged(self, now_s: float) -> Slowest | None:
        """Returns the rank that is named from now on."""
        counts = self._counts()
        if self.named is not None:
            now = self._of(self.named.rank, counts, now_s)
            if self._is(now, _END, _CHANCE_END, _END_LOST):
                return now
        if sum(counts.values()) < LEAST:
            return None
        ((rank, times),) = counts.most_common(1)
        if times < _BEGIN * sum(counts.values()):
            return None
        now = self._of(rank, counts, now_s)
        return now if self._is(now, _BEGIN, _CHANCE, _BEGIN_LOST) else None

    def _of(self, rank: int, counts: Counter[int], now_s: float) -> Slowest:
        recent = list(self._recent(now_s))
        lost = sum(one.lost.get(rank, 0.0) for one in recent) / sum(one.looks for one in recent)
        return Slowest(rank, counts[rank], sum(counts.values()), round(lost, 4))

    def _is(self, found: Slowest, share: float, chance: float, lost: float) -> bool:
        if not found.sampled or found.iterations < share * found.sampled or found.lost < lost:
            return False
        compared = min(one.compared[found.rank] for one in self._iterations if found.rank in one.compared)
        return at_least(found.iterations, found.sampled, 1 / compared) <= chance


@lru_cache(maxsize=256)
def at_least(times: int, of: int, share: float) -> float:
    """Returns the probability of at least ``times`` hits among ``of``, each with probability ``share`` (binomial)."""
    return sum(math.comb(of, hits) * share**hits * (1 - share) ** (of - hits) for hits in range(times, of + 1))
