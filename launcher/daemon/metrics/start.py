"""Starts the metrics of a node, if the user asked for some."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol

from distprof.config.settings import Settings
from distprof.heartbeat.slot import RankInfo
from distprof.launcher.daemon.metrics.rank_metrics import SeenRank
from distprof.launcher.daemon.metrics.utilization import known_peaks, mfu
from distprof.launcher.daemon.slow_rank.history import RankLooks
from distprof.rank import procfs
from distprof.run_folder import RunFolder

Ranks = Callable[[], Sequence[RankInfo]]
Looks = Callable[[], Mapping[int, RankLooks]]  # by rank


class Metrics(Protocol):
    """What the daemon does with them."""

    def refresh(self) -> None: ...

    def close(self) -> None: ...


class NoMetrics:
    """Nobody asked for any."""

    def refresh(self) -> None:
        return

    def close(self) -> None:
        return


def start_metrics(settings: Settings, run: RunFolder, key: str, ranks: Ranks, looks: Looks) -> Metrics:
    """Returns the metrics of the ``ranks`` of this node, with how often each was the slowest (``looks``).

    ``key`` is the name of the node in the run folder.
    """
    if settings.metrics is None and not settings.metrics_textfile:
        return NoMetrics()
    try:
        exporter = import_module("distprof.launcher.daemon.metrics.exporter")
    except ImportError:  # this node's Python is not the launcher's, which has looked
        return NoMetrics()
    found: Metrics = exporter.Exporter(settings, run, key, _seen(run, ranks, looks))
    return found


def _seen(run: RunFolder, ranks: Ranks, looks: Looks) -> Callable[[], list[SeenRank]]:
    """Returns a function that looks at the ranks of this node."""
    peaks = known_peaks(run)

    def seen_rank(info: RankInfo, now_ns: int, own: RankLooks | None) -> SeenRank:
        held = procfs.resident_bytes(info.pid, info.started_tick)
        return SeenRank(info, held is not None, now_ns, held, mfu(info.work, peaks), own)

    def look() -> list[SeenRank]:
        now_ns, found = time.perf_counter_ns(), looks()
        return [seen_rank(info, now_ns, found.get(info.rank)) for info in ranks()]

    return look
