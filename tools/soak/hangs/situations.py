"""The jobs, and what must be said of each."""

from __future__ import annotations

from dataclasses import dataclass

from distprof.heartbeat.hang_file import DEADLOCK, MISMATCH, MISSING, OUTSIDE

RANKS = 4


@dataclass(frozen=True)
class Situation:
    """``kind`` is empty for a job that does not hang: nothing may be said of it."""

    fault: str
    kind: str = ""
    ranks: tuple[int, ...] = ()
    words: str = ""  # a part of the cause

    @property
    def hangs(self) -> bool:
        return bool(self.kind)


SITUATIONS = (
    Situation("stopped", OUTSIDE, (3,), "stopped by a signal"),
    Situation("holds the lock", OUTSIDE, (3,), "holds Python's lock"),
    Situation("endless loop", OUTSIDE, (3,), "hang (train.py:"),
    Situation("asleep in data loading", OUTSIDE, (3,), "load_batch (train.py:"),
    Situation("asleep on a grid", OUTSIDE, (3,), "asleep"),
    Situation("other op", MISMATCH, (3,), "broadcast"),
    Situation("other size", MISMATCH, (3,), "4194304"),
    Situation("left", MISSING, (3,), "rank 3 left"),
    Situation("opposite order", DEADLOCK, (0, 1), "rank 0 for rank 1"),
    Situation("slow checkpoint"),
    Situation("slow first step"),
)
