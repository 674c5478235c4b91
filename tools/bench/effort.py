"""How often each part of the bench measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Effort:
    """The number of measurements of each kind."""

    pairs: dict[str, int]  # pairs of steps, by model
    narrow: int  # pairs of steps of the narrow model
    experts: dict[int, int]  # pairs of steps, by the number of MoE layers
    starts: int  # pairs of jobs that are only started, of one rank
    starts_of_many: int  # of all ranks of a node
    jobs: int  # pairs of jobs that train
    merges: dict[tuple[str, int], int]  # (kind of run, ranks) -> how often
    node: int = 8  # ranks
    pages: tuple[int, ...] = (1, 8, 256, 4096, 16384)  # ranks
    page_times: int = 5
    scale: tuple[int, int] = (256, 1024)  # ranks of two merges
    worlds: tuple[tuple[int, int, int], ...] = ((8, 16, 8), (16, 128, 8))  # stages, data- and tensor-parallel ranks
    world_times: int = 5
    large: tuple[int, int] = (16384, 2)  # ranks, how often they are merged in each way
    readings: int = 5  # of a traced job
    hta: str = ""  # a Python that has HTA; empty: this one, if it has

    def merging(self, ranks: Sequence[int]) -> Effort:
        """Returns the same with large runs of these numbers of ranks; those beyond 512 ranks are merged once."""
        demo = {run: times for run, times in self.merges.items() if run[0] == "demo"}
        sized = {(kind, size): 3 if size <= 512 else 1 for kind in ("large", "collectives") for size in ranks}
        return replace(self, merges=demo | sized)


THOROUGH = Effort(
    pairs={"small": 600, "large": 120},
    narrow=1200,
    experts={32: 60, 8: 1000},
    starts=25,
    starts_of_many=8,
    jobs=5,
    merges={
        ("demo", 8): 15,
        ("dense", 8): 15,
        ("large", 8): 5,
        ("experts", 8): 3,
        ("large", 512): 3,
        ("collectives", 512): 3,
    },
)
QUICK = Effort(
    pairs={"small": 1},
    narrow=1,
    experts={1: 1},
    starts=1,
    starts_of_many=1,
    node=2,
    jobs=1,
    merges={("demo", 8): 1},
    pages=(8,),
    page_times=1,
    scale=(1, 2),
    worlds=((1, 2, 2),),
    world_times=1,
    large=(2, 1),
    readings=1,
)
