"""The metrics of one rank: names, texts and values.  A value that is not known is None, and no metric shows it.

Names and units follow https://prometheus.io/docs/practices/naming/: base units, ``_total`` for what only grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from distprof.heartbeat.durations import upper_ns
from distprof.heartbeat.layout import PHASES
from distprof.heartbeat.slot import RankInfo
from distprof.launcher.daemon.slow_rank.history import RankLooks

_NS = 1e9
#: Every second bucket of the page, from 1 ms to 137 s.
_BUCKETS = range(19, 88, 2)


@dataclass(frozen=True)
class SeenRank:
    """A rank at one moment (``now_ns`` of the monotonic clock)."""

    info: RankInfo
    is_alive: bool
    now_ns: int
    resident_bytes: int | None
    mfu: float | None
    looks: RankLooks | None = None  # how often it was the slowest; None before the first window has ended

    @property
    def labels(self) -> tuple[str, str, str]:
        return str(self.info.rank), self.info.host, self.info.place

    @property
    def iteration_s(self) -> float | None:
        """The running mean of durations."""
        return self.info.smoothed_ns / _NS if self.info.smoothed_ns else None


class Gauge(NamedTuple):
    """A metric with one value a rank."""

    name: str
    text: str
    value: Callable[[SeenRank], float | None]
    of_living: bool = True  # only ranks that run have it


def _per_second(rank: SeenRank, number: int) -> float | None:
    return number / rank.iteration_s if number >= 0 and rank.iteration_s else None


def _of_looks(value: Callable[[RankLooks], float]) -> Callable[[SeenRank], float | None]:
    return lambda rank: value(rank.looks) if rank.looks is not None else None


def _known(number: float) -> float | None:
    return number if number >= 0 and math.isfinite(number) else None


UP = Gauge(
    "distprof_rank_up", "1 while the process of the rank runs, else 0", lambda rank: int(rank.is_alive), of_living=False
)
GAUGES = (
    UP,
    Gauge("distprof_iteration", "Number of the running iteration, from 0", lambda rank: rank.info.iteration),
    Gauge(
        "distprof_heartbeat_age_seconds",
        "Time since the running iteration began",
        lambda rank: max(0.0, (rank.now_ns - rank.info.began_ns) / _NS),
    ),
    Gauge(
        "distprof_samples_per_second",
        "Samples of the rank in its last timed iteration, by the running mean of iteration times",
        lambda rank: _per_second(rank, rank.info.last.samples),
    ),
    Gauge(
        "distprof_tokens_per_second",
        "Tokens of the rank's inputs in its last timed iteration, by the running mean of iteration times",
        lambda rank: _per_second(rank, rank.info.last.tokens),
    ),
    Gauge("distprof_mfu_ratio", "Model flops utilization of the rank in its last window", lambda rank: rank.mfu),
    Gauge(
        "distprof_expert_tokens",
        "Tokens that the experts of the rank processed in its last timed iteration",
        lambda rank: _known(rank.info.last.expert_tokens),
    ),
    Gauge(
        "distprof_expert_overload_ratio",
        "Load of the hottest expert over the mean of all experts in the worst layer, by the tokens that the rank saw "
        "in its last timed iteration",
        lambda rank: _known(rank.info.last.expert_overload),
    ),
    Gauge(
        "distprof_peak_memory_bytes",
        "Peak memory of the rank in its last timed iteration: of the GPU, else of the process",
        lambda rank: _known(rank.info.last.peak_bytes),
    ),
    Gauge("distprof_resident_memory_bytes", "Memory that the process holds", lambda rank: rank.resident_bytes),
    Gauge(
        "distprof_collective_wait_ratio",
        "Share of the last minute in which the rank waited in a collective for another one, by samples",
        _of_looks(lambda looks: looks.wait_share),
    ),
    Gauge(
        "distprof_straggler",
        "1 while the rank is the slowest of its node again and again, else 0",
        _of_looks(lambda looks: looks.is_named),
    ),
    Gauge(
        "distprof_slowest_iterations",
        "The iterations of distprof_sampled_iterations in which the rank was the slowest of its node",
        _of_looks(lambda looks: looks.slowest),
    ),
    Gauge(
        "distprof_sampled_iterations",
        "The last iterations, at most 50, in which one rank of the node was seen to be the slowest",
        _of_looks(lambda looks: looks.sampled),
    ),
    Gauge("distprof_window", "Number of the recording window that runs or ran last", lambda rank: rank.info.window),
)


def phase_seconds(rank: SeenRank) -> dict[str, float]:
    """Returns the seconds of each phase that was seen in the last timed iteration."""
    times = zip(PHASES, rank.info.last.phases_ns, strict=False)
    return {phase: taken / _NS for phase, taken in times if taken >= 0}


def iteration_buckets(rank: SeenRank) -> list[tuple[str, float]]:
    """Returns (upper bound in seconds, iterations that took at most so long), as a Prometheus histogram has them."""
    counts = rank.info.histogram
    known = [(repr(upper_ns(last) / _NS), float(sum(counts[: last + 1]))) for last in _BUCKETS]
    return [*known, ("+Inf", float(sum(counts)))]
