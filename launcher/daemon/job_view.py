"""The ranks of a job as ``top`` and ``status`` show them: what is slow, stuck or missing is decided here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distprof.heartbeat.hang_file import Hang
from distprof.launcher.daemon.slow_rank.history import Slowest
from distprof.launcher.daemon.status import NodeStatus, RankStatus

_NS = 1e9
#: A rank is slow if it is so many iterations behind the furthest rank, or so many times slower than the median of the
#: ranks, or the slowest again and again.
SLOW_LAG, SLOW_TIMES = 2, 1.25
#: The daemon of a node that has said nothing for this time has ended, or cannot be heard.
SILENT_S = 15.0
RUNNING = ("quiet", "counted", "timed", "traced")
STUCK, SLOW, SILENT = "stuck", "slow", "silent"


@dataclass(frozen=True)
class RankView:
    """One rank.  ``mark`` is empty, slow, stuck, silent (its daemon is not heard), ended, unseen or dead."""

    status: RankStatus
    heard_s: float  # since its daemon made the status
    iterations_per_s: float | None
    lag: int | None  # iterations behind the furthest rank; None for a rank that does not run
    mark: str

    def fields(self) -> dict[str, Any]:
        """Returns the rank as plain data, for JSON."""
        return {
            **asdict(self.status),
            "heard_s": round(self.heard_s, 3),
            "iterations_per_s": self.iterations_per_s,
            "lag": self.lag,
            "mark": self.mark,
        }


@dataclass(frozen=True)
class JobView:
    """The job: its ranks in order, those of which nothing was heard, and why it stands still, if it does.

    ``slowest`` is the rank that is the slowest of its node again and again; of several nodes, where most time is lost.
    """

    ranks: tuple[RankView, ...]
    missing: tuple[int, ...]
    world_size: int
    hang: Hang | None = None
    awaits_ranks: bool = False  # no rank was seen yet, and a daemon waits for one
    slowest: Slowest | None = None

    def fields(self) -> dict[str, Any]:
        return {
            "world_size": self.world_size,
            "ranks": [rank.fields() for rank in self.ranks],
            "missing": list(self.missing),
            "hang": None if self.hang is None else asdict(self.hang),
            "slowest": None if self.slowest is None else asdict(self.slowest),
        }

    @property
    def runs(self) -> bool:
        """Whether any rank runs."""
        return any(rank.lag is not None for rank in self.ranks)


def view(nodes: Sequence[NodeStatus], now_ns: int | None = None) -> JobView:
    """Returns the job; of a rank on several nodes (it was started again) the newest status counts."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    statuses = newest_statuses(nodes)
    newest = {number: (rank, max(0.0, (now_ns - node.wall_ns) / _NS)) for number, (rank, node) in statuses.items()}
    judging = list({id(node): node for _, node in statuses.values()}.values())
    running = [rank for rank, heard_s in newest.values() if rank.state in RUNNING and heard_s <= SILENT_S]
    front = max((rank.iteration for rank in running), default=0)
    known = [rank.iteration_ns for rank in running if rank.iteration_ns]
    typical_ns = statistics.median(known) if known else None
    slowest = _slowest(judging, {rank.rank for rank in running})
    named = slowest.rank if slowest is not None else None
    ranks = tuple(_view(*newest[number], front, typical_ns, named) for number in sorted(newest))
    world_size = max((rank.world_size for rank, _ in newest.values()), default=0)
    hang = next((node.hang for node in judging if node.hang is not None), None)
    heard = any(now_ns - node.wall_ns <= SILENT_S * _NS for node in nodes)
    missing = tuple(sorted(set(range(world_size)) - newest.keys()))
    return JobView(ranks, missing, world_size, hang, awaits_ranks=heard and not ranks, slowest=slowest)


def newest_statuses(nodes: Sequence[NodeStatus]) -> dict[int, tuple[RankStatus, NodeStatus]]:
    """Returns the newest status of each rank with that of its node.

    The run folder may have older ones of earlier launches of the job, whose ranks may have been more.
    """
    found: dict[int, tuple[RankStatus, NodeStatus]] = {}
    world_size = 0
    for node in sorted(nodes, key=lambda node: node.wall_ns):
        world_size = max((rank.world_size for rank in node.ranks), default=world_size)
        found.update({rank.rank: (rank, node) for rank in node.ranks})
    return {number: one for number, one in found.items() if number < world_size}


def _slowest(nodes: Sequence[NodeStatus], running: Collection[int]) -> Slowest | None:
    found = [node.slowest for node in nodes if node.slowest is not None and node.slowest.rank in running]
    return max(found, key=lambda one: one.lost, default=None)


def _view(rank: RankStatus, heard_s: float, front: int, typical_ns: float | None, slowest: int | None) -> RankView:
    rate = round(_NS / rank.iteration_ns, 3) if rank.iteration_ns else None
    if rank.state not in RUNNING:
        return RankView(rank, heard_s, rate, None, rank.state)
    if heard_s > SILENT_S:
        return RankView(rank, heard_s, rate, None, SILENT)
    lag = front - rank.iteration
    return RankView(rank, heard_s, rate, lag, _mark(rank, lag, typical_ns, slowest))


def _mark(rank: RankStatus, lag: int, typical_ns: float | None, slowest: int | None) -> str:
    if rank.age_s > rank.limit_s:
        return STUCK
    if rank.rank == slowest or lag >= SLOW_LAG:
        return SLOW
    if rank.iteration_ns and typical_ns and rank.iteration_ns > SLOW_TIMES * typical_ns:
        return SLOW
    return ""


def marked(ranks: Iterable[RankView], *marks: str) -> list[RankView]:
    return [rank for rank in ranks if rank.mark in marks]
