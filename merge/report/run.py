"""What was merged, and how the job is parallel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunInfo:
    """What was merged, and what is not there."""

    run_id: str
    name: str
    script: str
    world_size: int
    ranks: tuple[int, ...]  # recorded, ascending
    missing_ranks: tuple[int, ...]
    incomplete: dict[int, str]  # rank -> why its window is not full
    device: str  # torch's device type: "cpu", "cuda"
    device_name: str
    hosts: tuple[str, ...]
    torch: str
    mode: str  # records.TRAINING or records.FORWARD: what an iteration is
    planned_timed_steps: int
    without_data: tuple[int, ...] = ()  # of ``ranks``, those that left a shard and no iteration in it
    notes: tuple[str, ...] = ()  # damaged shards, assumptions, disagreements: one sentence each, for the first page

    @property
    def unit(self) -> str:
        """What one worker is called: DeepSpeed says GPU."""
        return "rank" if self.device in ("cpu", "meta") else "GPU"


@dataclass(frozen=True)
class TopologyInfo:
    """Parallel axes of the job; ``sizes`` has every axis of records.AXES, and mp, and finer ones where they are known.

    Every rank's coordinates on the same axes stand in its :class:`RankRow`.
    """

    source: str  # who told most of it, in the words of records.Topology
    sizes: dict[str, int]
    sources: dict[str, str]  # who told each axis, where that is known
