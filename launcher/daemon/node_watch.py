"""What a daemon knows of its own node: the slots of its page, and the processes behind them."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from distprof.heartbeat.page import Page
from distprof.heartbeat.slot import NOT_MEASURED, RankInfo, Request, State
from distprof.heartbeat.slot_reader import PageReader, is_alive
from distprof.heartbeat.slot_writer import write_request
from distprof.launcher.daemon.hang_watch.limits import FLOOR_S, limit_s
from distprof.launcher.daemon.requests import WindowRequest
from distprof.launcher.daemon.slow_rank.history import RankLooks
from distprof.launcher.daemon.status import NodeStatus, RankStatus
from distprof.rank import procfs

_NS = 1e9
DEAD = "dead"


class NodeWatch:
    """Reads the page of this node, and writes requests into it."""

    def __init__(self, page: Page, node: str, floor_s: float = FLOOR_S) -> None:
        """``floor_s``: the least time after which an iteration counts as stuck."""
        self._page = page
        self._reader = PageReader(page)
        self._floor_s = floor_s
        self.node = node
        self._request = 0  # the last one that was written into the page

    def status(self, looks: Mapping[int, RankLooks]) -> NodeStatus:
        """Returns the status of this node; ``looks`` say of ranks how often each was the slowest."""
        now_ns = time.perf_counter_ns()
        ranks = tuple(_status(found, now_ns, self._floor_s, looks.get(found.rank)) for found in self.ranks())
        return NodeStatus(self.node, socket.gethostname(), time.time_ns(), self._request, ranks)

    def ranks(self) -> list[RankInfo]:
        """Returns the ranks of this node, by rank."""
        return sorted((found for _, found in self.slots()), key=lambda found: found.rank)

    def has_live_ranks(self) -> bool:
        """Whether any process of a slot runs and has not said that it has ended; mostly answered by the first slot."""
        return any(found.state is not State.ENDED and is_alive(found) for _, found in self._reader.slots())

    def answering(self) -> list[int]:
        """Returns the slots of ranks whose processes run, and are not stopped; the lowest rank first."""
        ranks = sorted(self.slots(), key=lambda found: found[1].rank)
        return [index for index, found in ranks if is_alive(found) and not procfs.is_stopped(found.pid)]

    def pass_on(self, request: WindowRequest) -> None:
        """Writes a request into the slots of the ranks that it is for, if it is newer than the last one."""
        if request.number <= self._request:
            return
        self._request = request.number
        plan = Request(request.number, request.start, request.counted, request.timed, request.window, request.traced)
        for index, found in self.slots():
            if request.ranks is None or found.rank in request.ranks:
                write_request(self._page, index, plan)

    def slots(self) -> list[tuple[int, RankInfo]]:
        """Returns the slots, of a rank with several the one that was taken last: a restarted rank may get another."""
        newest: dict[int, tuple[int, RankInfo]] = {}
        for index, found in self._reader.slots():
            before = newest.get(found.rank)
            if before is None or before[1].started_ns < found.started_ns:
                newest[found.rank] = index, found
        return list(newest.values())


def _status(found: RankInfo, now_ns: int, floor_s: float, looks: RankLooks | None) -> RankStatus:
    resident_bytes, answer = procfs.resident_bytes(found.pid, found.started_tick), found.answer
    collective = found.collective
    was_seen = bool(found.phase or found.module or collective)
    alive = resident_bytes is not None
    return RankStatus(
        rank=found.rank,
        world_size=found.world_size,
        local_rank=found.local_rank,
        pid=found.pid,
        host=found.host,
        place=found.place,
        device=found.device,
        state=found.state.name.lower() if alive or found.state is State.ENDED else DEAD,
        iteration=found.iteration,
        age_s=round((now_ns - found.began_ns) / _NS, 3),
        limit_s=round(limit_s(found.iteration, found.usual_p99_ns, floor_s), 3),
        iteration_ns=found.smoothed_ns,
        median_ns=found.median_ns,
        p99_ns=found.p99_ns,
        window=found.window,
        window_end=found.window_end,
        phase=found.phase,
        module=found.module,
        activity_age_s=round((now_ns - found.sampled_ns) / _NS, 3) if was_seen else None,
        data_ns=_measured(found.last.phases_ns[0] if found.last.phases_ns else NOT_MEASURED),
        timed_ns=_measured(found.last.duration_ns),
        samples=_measured(found.last.samples),
        peak_bytes=_measured(found.last.peak_bytes),
        resident_bytes=resident_bytes,
        error=found.error,
        request=answer.request if answer is not None else 0,
        request_window=answer.window if answer is not None else 0,
        refusal=answer.reason if answer is not None else "",
        slowest_in=looks.slowest if looks is not None else None,
        sampled=looks.sampled if looks is not None else None,
        wait_share=round(looks.wait_share, 3) if looks is not None else None,
        collective_group=collective.group if collective is not None else "",
        collective_op=collective.op or None if collective is not None else None,
        collective_number=collective.number if collective is not None else None,
        collective_runs=collective.completed < collective.number if collective is not None else None,
    )


def _measured(value: int) -> int | None:
    return value if value >= 0 else None
