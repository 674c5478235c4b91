"""Plans a window in a running job: at an iteration that no rank has reached when it hears of it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from distprof.errors import UsageError
from distprof.launcher.daemon.job_view import RUNNING, newest_statuses
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.status import NodeStatus, RankStatus

_NS = 1e9
#: A request reaches the ranks of one node by the socket, and those of other nodes when their daemons look again.
_HERE_S, _ELSEWHERE_S = 1.0, 6.0
#: Iterations that are left in any case.
_MARGIN = 3
#: The ranks of a node that was not heard for this time do not run.  A shared file system may be late by a minute.
_GONE_S = 120.0
#: An iteration's duration that is not known yet.
_UNKNOWN_NS = 50_000_000


@dataclass(frozen=True)
class Answers:
    """What the ranks of a request have answered."""

    accepted: tuple[int, ...]
    refused: dict[int, str]  # rank -> why
    silent: tuple[int, ...]


def plan_request(
    nodes: Sequence[NodeStatus],
    counted: int,
    timed: int,
    ranks: Collection[int] | None,
    last_request: int = 0,
    traced: int = 0,
    now_ns: int | None = None,
) -> WindowRequest:
    """Returns the request for a window of all running ranks, or of those in ``ranks``.

    Raises UsageError if one of them does not run.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    running = _running(nodes, now_ns)
    if not running:
        raise UsageError(f"no rank of this job runs{_silence(nodes, now_ns)}")
    absent = sorted(set(ranks or ()) - running.keys())
    if absent:
        raise UsageError(f"rank {absent[0]} does not run")
    everyone = [rank for rank, _ in running.values()]
    delay_s = _ELSEWHERE_S if len(nodes) > 1 else _HERE_S
    start = max(_reached(rank, (now_ns - node.wall_ns) / _NS + delay_s) for rank, node in running.values())
    return WindowRequest(
        number=1 + max(last_request, *(node.request for node in nodes), *(rank.request for rank in everyone)),
        start=max(start + _MARGIN, *(rank.window_end for rank in everyone)),
        counted=counted,
        timed=timed,
        window=1 + max(max(rank.window, rank.request_window) for rank in everyone),
        traced=traced,
        ranks=None if ranks is None else tuple(sorted(ranks)),
    )


def _reached(rank: RankStatus, seconds: float) -> int:
    """Returns the iteration that a rank has reached after this time at most, by the fastest pace that is known."""
    fastest_ns = min((pace for pace in (rank.iteration_ns, rank.median_ns) if pace), default=_UNKNOWN_NS)
    return rank.iteration + math.ceil(max(0.0, seconds) * _NS / fastest_ns)


def _running(nodes: Sequence[NodeStatus], now_ns: int) -> dict[int, tuple[RankStatus, NodeStatus]]:
    return {
        number: (rank, node)
        for number, (rank, node) in newest_statuses(nodes).items()
        if rank.state in RUNNING and now_ns - node.wall_ns < _GONE_S * _NS
    }


def _silence(nodes: Sequence[NodeStatus], now_ns: int) -> str:
    """Returns since when the ranks that seem to run were not heard of; empty without such ranks."""
    heard = [node.wall_ns for rank, node in newest_statuses(nodes).values() if rank.state in RUNNING]
    return f": its daemons were last heard {(now_ns - max(heard)) / _NS:.0f} s ago" if heard else ""


def answers(nodes: Sequence[NodeStatus], request: WindowRequest, now_ns: int | None = None) -> Answers:
    """Returns what the ranks of a request have answered so far."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    running = [rank for rank, _ in _running(nodes, now_ns).values()]
    asked = [rank for rank in running if request.ranks is None or rank.rank in request.ranks]
    heard = [rank for rank in asked if rank.request == request.number]
    return Answers(
        tuple(sorted(rank.rank for rank in heard if not rank.refusal)),
        {rank.rank: rank.refusal for rank in heard if rank.refusal},
        tuple(sorted(rank.rank for rank in asked if rank.request != request.number)),
    )
