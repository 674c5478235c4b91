"""Ranks and pipeline stages: their times and memory."""

from __future__ import annotations

from distprof.plain import dataclass

#: Kinds of memory, and the field of :class:`RankRow` for each.
HOLDINGS = {
    "parameters": "parameter_bytes",
    "gradients": "gradient_bytes",
    "optimizer state": "optimizer_bytes",
    "peak": "peak_memory_bytes",
}


@dataclass(frozen=True)
class RankRow:
    """One rank: its coordinates, and its own medians over timed steps."""

    rank: int  # its number, from 0
    coordinates: dict[str, int]  # by axis, as in TopologyInfo.sizes
    cohort: int  # cohorts are numbered from 0
    host: str  # name of its machine
    complete: bool  # whether it recorded all of the planned window
    steps: int  # timed steps recorded
    iteration_ns: float | None  # wall time; null where no step was timed
    phases_ns: dict[str, float | None]  # by phase of records.PHASES; None: not seen
    parameter_bytes: int | None  # this field and the two below: local bytes between two iterations
    gradient_bytes: int | None  # of gradients
    optimizer_bytes: int | None  # with the copies of parameters that the optimizer updates
    peak_memory_bytes: int | None  # the largest of the timed steps
    memory_source: str  # "allocator" (CUDA), or "rss" (resident memory of the process)
    params: int | None  # parameters that it holds or shares
    fwd_macs: int | None  # MACs of forward
    mfu: float | None  # as a share of 1
    hfu: float | None  # as a share of 1
    step_iterations: tuple[int, ...] = ()  # numbers of the timed iterations, ascending
    step_durations_ns: tuple[int, ...] = ()  # wall time of each of them
    step_processor_waits_ns: tuple[float | None, ...] = ()  # ready, but no processor was free; None: not seen
    step_own_ns: tuple[int, ...] = ()  # without waits in collectives; empty where these are not known
    data_max_ns: float | None = None  # the longest data wait of a timed step; None where no DataLoader was seen
    memory_unknown: str = ""  # why parameter_bytes and the two below it are None, where the reason is known


@dataclass(frozen=True)
class HostRow:
    """One host: medians over its ranks of their medians over timed steps, and its largest memory."""

    host: str  # name of the machine
    ranks: tuple[int, ...]  # recorded ones, ascending
    slow: tuple[int, ...]  # those that the verdict names
    iteration_ns: float | None  # wall time; null where no step was timed
    own_ns: float | None  # of the iteration, without waits in collectives; None where these are not known
    wait_ns: float | None  # in collectives
    data_ns: float | None  # None where no rank was seen to load data
    peak_memory_bytes: int | None  # the largest of its ranks


@dataclass(frozen=True)
class StageRow:
    """One pipeline stage: medians over timed steps and ranks; merge/times/pipeline.py has the formulas."""

    stage: int  # coordinate on pp
    virtual_stages: int  # stages on each of its ranks
    ranks: tuple[int, ...]  # its recorded ranks, ascending
    micro_batches: float | None  # in one iteration
    forward_ns: float  # in modules, without the waits for other ranks where these are known
    backward_ns: float  # likewise without waits
    waiting_ns: float  # the rest of the schedule
    bubble: float | None  # share of the schedule in which the stage waits
    ideal_bubble: float | None  # the bubble of the schedule if all stages took equally long


@dataclass(frozen=True)
class MemoryDifference:
    """The rank of a cohort that holds most, or least, where it differs from the cohort's median by much."""

    rank: int  # its number
    what: str  # a key of HOLDINGS
    own_bytes: int  # that it holds
    cohort_bytes: float  # the median of its cohort
    others: int = 0  # further ranks of the cohort that differ by much on this side
