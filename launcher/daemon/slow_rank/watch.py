"""Looks at all ranks of a node some times a second, and says when one begins and ends to be the slowest.

The ranks are asked by pipes, and answer through the page: an iteration does not pay for it.  An answer is read at the
next step, so nothing here waits.  Only iterations between the windows count, and none before the first one: the
coordinates of the ranks are known after it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence

from distprof.heartbeat.look import GROUPS, Pipes
from distprof.heartbeat.page import Page
from distprof.heartbeat.slot import Position, RankInfo, State
from distprof.heartbeat.slot_reader import PageReader
from distprof.launcher.daemon.slow_rank.arrivals import RankPosition, look_at
from distprof.launcher.daemon.slow_rank.history import History, RankLooks, Slowest
from distprof.launcher.daemon.slow_rank.wording import end_sentence, sentence

#: The mean time between two looks, of which it differs by this share at most; and the time between two looks at who the
#: ranks are.
_LOOK_S, _DIFFERS, _REFRESH_S = 0.4, 0.5, 5.0
#: A rank that has not answered is asked again after this time: it may be stopped, and its pipe must not fill.
_SILENT_NS = 10_000_000_000
#: The answers of all ranks must come within this time to be of one moment.
_SPREAD_NS = 50_000_000
_SEVERAL = 2

Slots = Sequence[tuple[int, RankInfo]]
Positions = Mapping[int, Position | None]  # by slot


def pause_s() -> float:
    """Returns the time to the next look.  It varies, so that looks do not meet the same moment of each iteration."""
    return _LOOK_S * random.uniform(1 - _DIFFERS, 1 + _DIFFERS)


class SlowRankWatch:
    """Watches the ranks of one node."""

    def __init__(self, page: Page, token: str, slots: Callable[[], Slots], say: Callable[[str], None]) -> None:
        """``slots`` returns the slots of this node with their ranks; ``say`` writes a line into the job's log."""
        self._page = PageReader(page)
        self._pipes = Pipes(token)
        self._slots = slots
        self._say = say
        self._history = History()
        self._ranks: dict[int, RankInfo] = {}  # by slot
        self._refreshed_s = -_REFRESH_S
        self._asked_ns: dict[int, int] = {}  # slot -> when it was asked last

    @property
    def slowest(self) -> Slowest | None:
        return self._history.named

    def looks(self) -> Mapping[int, RankLooks]:
        """Returns what the last looks say of each rank; nothing before the first one."""
        return self._history.looks((info.rank for info in self._ranks.values()), time.monotonic())

    def step(self) -> None:
        """Goes on; called after :func:`pause_s` again."""
        now_s = time.monotonic()
        if now_s >= self._refreshed_s + _REFRESH_S:
            self._refreshed_s = now_s
            self._refresh()
        if len(self._ranks) >= _SEVERAL:
            positions = {slot: self._page.slot(slot).position() for slot in self._ranks}
            self._read(positions, now_s)
            self._ask(positions)

    def _refresh(self) -> None:
        before = {slot: info.pid for slot, info in self._ranks.items()}
        self._ranks = dict(self._slots())
        if {slot: info.pid for slot, info in self._ranks.items()} != before:
            self._history, self._asked_ns = History(), {}
            self._pipes.close()  # the new rank of a slot has another one

    def _read(self, positions: Positions, now_s: float) -> None:
        """Takes the answers to the last question, if all are there and of one moment."""
        seen, moments = [], []
        for slot, position in positions.items():
            if position is None or position.state is not State.QUIET or not position.is_recorded:
                return
            if not self._has_answered(slot, position):
                return
            moments.append(position.looked_ns)
            seen.append(RankPosition(self._ranks[slot].rank, self._ranks[slot].place, position))
        if max(moments) - min(moments) > _SPREAD_NS:
            return
        before = self._history.named
        self._history.add(look_at(seen), now_s)
        self._tell(before, self._history.named)

    def _ask(self, positions: Positions) -> None:
        """Asks all ranks, each time in another order: the first one asked may seem to be behind the others."""
        now_ns = time.perf_counter_ns()
        slots = [
            slot
            for slot, position in positions.items()
            if self._has_answered(slot, position) or now_ns > self._asked_ns.get(slot, 0) + _SILENT_NS
        ]
        random.shuffle(slots)
        self._asked_ns.update(dict.fromkeys(self._pipes.ask_each(slots, GROUPS, 0), now_ns))

    def _has_answered(self, slot: int, position: Position | None) -> bool:
        return position is not None and slot in self._asked_ns and position.looked_ns >= self._asked_ns[slot]

    def _tell(self, before: Slowest | None, now: Slowest | None) -> None:
        if before is not None and (now is None or now.rank != before.rank):
            self._say(end_sentence(before))
        if now is not None and (before is None or now.rank != before.rank):
            self._say(sentence(now))
