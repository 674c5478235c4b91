"""The run that was merged, and its topology."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class WindowInfo:
    """One window of the run: the iterations that any rank counted or timed in it."""

    number: int  # of the window, from 0
    first_iteration: int  # number of the first iteration, from 0
    last_iteration: int  # number of the last one, included
    ranks: int  # how many recorded anything in it
    iteration_ns: float | None  # the median over these ranks, each with the median of its timed steps


@dataclass(frozen=True)
class SlowInWindow:
    """A rank that was slow in a reduced window, by the sums that are left of it."""

    rank: int  # its number
    phase: str  # "data": it waited longer for data; empty: its whole iterations took longer
    excess_ns: float  # above the median of the others of its cohort, in the mean iteration


@dataclass(frozen=True)
class ReducedWindow:
    """What is left of one of the old windows of a run with windows that come back (``--every``)."""

    number: int  # of the window, from 0
    first_iteration: int  # number of the first timed iteration that is used
    ranks: int  # how many have a summary of it
    iteration_ns: float | None  # the median over these ranks, each with the median of its timed steps
    longest_ns: float  # the longest timed step of any rank
    mfu: float | None  # by the work of the report's window, scaled by the MACs; None where either is not known
    slow: tuple[SlowInWindow, ...] = ()  # the largest excess first; other phases hold waits and tell nothing


@dataclass(frozen=True)
class RunInfo:
    """Which run and ranks were merged, and which ranks are missing."""

    run_id: str  # the same in all shards of the run
    name: str  # of the run; its id where the manifest is missing
    script: str  # path of the script, as it was started; may be empty
    world_size: int  # ranks of the job, recorded or not
    ranks: tuple[int, ...]  # recorded, ascending
    missing_ranks: tuple[int, ...]  # ranks without a shard, ascending
    incomplete: dict[int, str]  # rank -> why its window is not full
    device: str  # torch's device type: "cpu", "cuda"
    device_name: str  # the maker's name of the device; empty where it is not known
    hosts: tuple[str, ...]  # names of the machines, in the order of the alphabet
    torch: str  # its version; empty where that is not known
    mode: str  # records.TRAINING or records.FORWARD: what an iteration is
    planned_timed_steps: int  # the most timed steps that a rank planned
    without_data: tuple[int, ...] = ()  # those of ``ranks`` whose shards have no counted or timed iteration
    window: int = 0  # the number of the window that the report shows
    windows: tuple[WindowInfo, ...] = ()  # all that hold anything, ascending
    reduced_windows: tuple[ReducedWindow, ...] = ()  # those of which only summaries are left, ascending
    notes: tuple[str, ...] = ()  # sentences for the first page: damaged shards, assumptions, conflicts

    @property
    def unit(self) -> str:
        """The word for one worker; DeepSpeed uses GPU."""
        return "rank" if self.device in ("cpu", "meta") else "GPU"


@dataclass(frozen=True)
class TopologyInfo:
    """The parallel axes of the job; each :class:`RankRow` has the coordinates on the same axes."""

    source: str  # of most axes, one of the sources of records.Topology
    sizes: dict[str, int]  # every axis of records.AXES, mp, and finer axes where they are known
    sources: dict[str, str]  # of each axis, where it is known
