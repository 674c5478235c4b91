"""Each rank, and each pipeline stage: its own times and what it holds in memory."""

from __future__ import annotations

from dataclasses import dataclass

#: What a rank holds in memory, and the field of a :class:`RankRow` that has it.
HOLDINGS = {
    "parameters": "parameter_bytes",
    "gradients": "gradient_bytes",
    "optimizer state": "optimizer_bytes",
    "peak": "peak_memory_bytes",
}


@dataclass(frozen=True)
class RankRow:
    """One rank: where it is, and its own medians over timed steps."""

    rank: int
    coordinates: dict[str, int]
    cohort: int  # cohorts are numbered from 0
    host: str
    complete: bool
    steps: int  # timed steps recorded
    iteration_ns: float | None
    phases_ns: dict[str, float | None]  # keys of records.PHASES; None: could not be seen
    parameter_bytes: int | None  # local bytes between two iterations, these three
    gradient_bytes: int | None
    optimizer_bytes: int | None  # state, and copies of parameters that the optimizer steps in
    peak_memory_bytes: int | None
    memory_source: str
    params: int | None
    fwd_macs: float | None
    mfu: float | None
    hfu: float | None
    step_iterations: tuple[int, ...] = ()
    step_durations_ns: tuple[int, ...] = ()
    memory_unknown: str = ""  # why the three above are None, where that is known


@dataclass(frozen=True)
class StageRow:
    """One pipeline stage, over its ranks and their timed steps; merge/times/pipeline.py has the formulas."""

    stage: int  # coordinate on pp
    virtual_stages: int  # stages of the model on each of its ranks
    ranks: tuple[int, ...]
    micro_batches: float | None
    forward_ns: float  # in modules
    backward_ns: float
    waiting_ns: float
    bubble: float | None  # the share of the schedule's time in which the stage waits
    ideal_bubble: float | None


@dataclass(frozen=True)
class MemoryDifference:
    """A rank that holds more or less than its cohort."""

    rank: int
    what: str  # a key of HOLDINGS
    own_bytes: int
    cohort_bytes: float  # the median of its cohort
