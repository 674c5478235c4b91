"""What a slot says, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from distprof.heartbeat.durations import quantile_ns, sums

#: A value that was not measured.
NOT_MEASURED = -1
#: So many of the longest iterations do not count for what is usual: code is compiled in the first ones.
UNUSUAL = 3
_MEDIAN, _P99 = 0.5, 0.99


class State(IntEnum):
    """What a rank is in."""

    QUIET = 0  # an iteration that is not recorded
    COUNTED = 1
    TIMED = 2
    ENDED = 3  # the rank has ended its work
    UNSEEN = 4  # the recording ended with an error: iterations are no longer seen
    TRACED = 5  # torch.profiler makes a trace


class Request(NamedTuple):
    """A window that is asked for.  ``number`` grows from request to request of a run."""

    number: int
    start: int  # its first iteration
    counted: int
    timed: int
    window: int  # its number in the shards
    traced: int = 0  # iterations after these, by torch.profiler


@dataclass(frozen=True)
class Answer:
    """The answer of a rank to a request; ``reason`` is empty if it was accepted."""

    request: int
    window: int
    iteration: int  # the one that was running
    reason: str


class GroupProgress(NamedTuple):
    """How far the collectives of one group are on a rank; -1: not known."""

    name: str  # its description where the job gave one
    size: int  # the number of its members
    members: int  # groups with the same members have the same number
    enqueued: int  # the number of the last collective that was enqueued
    completed: int


class LastCollective(NamedTuple):
    """The collective that a rank is in, or was in last."""

    group: str  # its description where the job gave one
    size: int  # the number of the group's members
    members: int  # groups with the same members have the same number
    number: int  # in its group
    completed: int  # the last one of the group that is completed; -1: none is
    op: str  # empty: not known


class Position(NamedTuple):
    """Where a rank is, as its slot shows it."""

    iteration: int  # the running one
    duration_ns: int | None  # of the iteration before
    state: State
    is_recorded: bool  # a window of it has ended: its coordinates are known
    looked_ns: int  # when the groups were looked at, on the monotonic clock
    groups: tuple[GroupProgress, ...]


class StepFigures(NamedTuple):
    """The figures of one timed iteration; -1: not measured."""

    iteration: int = NOT_MEASURED
    duration_ns: int = NOT_MEASURED
    phases_ns: tuple[int, ...] = ()  # in the order of layout.PHASES
    samples: int = NOT_MEASURED
    tokens: int = NOT_MEASURED  # of the model's inputs
    peak_bytes: int = NOT_MEASURED  # memory
    expert_tokens: int = NOT_MEASURED  # that the experts of this rank processed
    expert_overload: float = NOT_MEASURED  # the load of the hottest expert over the mean of all


class DeviceMacs(NamedTuple):
    """The model's MACs of one iteration in one arithmetic on one kind of device, which has one peak."""

    device: str  # the name that the driver gives
    threads: int  # torch's number of threads on the CPU; else 0
    arithmetic: str
    macs: int


class WindowWork(NamedTuple):
    """The work of the counted iteration of a window, and the mean duration of its timed ones; -1: not measured."""

    window: int = NOT_MEASURED
    mean_ns: int = NOT_MEASURED
    devices: int = 0
    macs: tuple[DeviceMacs, ...] = ()


@dataclass(frozen=True)
class RankInfo:
    """One rank as its slot shows it.  Times are of the monotonic clock of its node (ns); None: not known."""

    rank: int
    world_size: int
    local_rank: int
    node_rank: int
    pid: int
    started_tick: int  # of the process, in the kernel's clock ticks
    started_wall_ns: int  # of its recording
    started_ns: int
    host: str
    place: str
    device: str
    gpu_uuid: str  # empty without one
    state: State
    iteration: int
    began_ns: int  # the running iteration
    duration_ns: int | None  # of the iteration before
    smoothed_ns: int | None  # a running mean of durations
    window: int  # the one that runs, or ran last
    window_end: int  # the first iteration after it
    phase: str  # in timed iterations, else empty
    module: str
    sampled_ns: int  # when phase and module were looked at
    groups: tuple[GroupProgress, ...]
    collective: LastCollective | None  # in timed iterations, looked at with phase and module
    histogram: tuple[int, ...]  # iterations by their duration, as in distprof.heartbeat.durations
    total_ns: int  # the sum of these durations
    last: StepFigures  # of the last timed iteration
    work: WindowWork  # of the last window
    error: str
    error_where: str
    answer: Answer | None

    @cached_property
    def _sums(self) -> list[int]:
        return sums(self.histogram)

    @property
    def median_ns(self) -> int | None:
        """The median of all iterations."""
        return quantile_ns(self._sums, _MEDIAN)

    @property
    def p99_ns(self) -> int | None:
        """The 99th percentile of all iterations."""
        return quantile_ns(self._sums, _P99)

    @property
    def usual_p99_ns(self) -> int | None:
        """The 99th percentile without the longest iterations, mostly the first ones."""
        return quantile_ns(self._sums, _P99, UNUSUAL)
