"""What a synthetic job is: its size, its model, and what is slow in it."""

from __future__ import annotations

from dataclasses import dataclass

from distprof.records import TRAINING

MS = 1_000_000
WARMUP = 5
WIDTH = 64
VOCABULARY = 1000
TOKENS = 16  # of one sample
RUN_ID = "synthetic-1"
WALL_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Job:
    """The job to write.  Every second block is a mixture of ``experts``, spread over ``ep`` (0: all blocks are dense).

    ``slow_rank`` takes ``slow_ms`` more in every iteration, in ``slow_phase`` (forward, backward or data) and, but for
    data, in the self time of ``slow_module``; its peers wait for it in the backward of the outermost module, or, where
    ``waits_in`` names a module, those of its ep group alone in the forward of that.
    ``hot`` is how many times the load of another expert 1 of each layer gets.  ``tp_experts``: experts are cut over tp.
    ``local_names``: each pipeline stage numbers its blocks from 0 on.  A token sees ``top_k`` experts, and with
    ``shared_expert`` one more that sees all tokens.  ``tied_stages``: the head of the last stage is a copy of the
    embedding of the first.  The MoE layers run on ``padding`` times the rows that they need, and with ``split_tokens``
    each tp rank routes tokens of its own.  A rank enqueues ``collectives`` in an iteration; none are recorded if it is
    0.  ``routes``: routers' choices are recorded, too; every rank of an ep group sends its experts about as many.
    """

    dp: int = 2
    tp: int = 1
    pp: int = 1
    ep: int = 1
    layers: int = 2
    experts: int = 4
    steps: int = 3
    micro_batches: int = 1
    batch: int = 8
    slow_rank: int | None = None
    slow_ms: float = 40.0
    slow_module: str = "blocks.1.moe.router"
    slow_phase: str = "forward"
    waits_in: str = ""
    noise: float = 0.05  # relative, of every time; 0: times and loads are the same in every step and on every rank
    hot: float = 1.0
    tp_experts: bool = False
    local_names: bool = False
    top_k: int = 2
    shared_expert: bool = False
    tied_stages: bool = False
    padding: int = 1
    split_tokens: bool = False
    mode: str = TRAINING
    counted: bool = True
    source: str = "declared"
    seed: int = 0
    chip: str = "Some CPU"  # the device of all MACs; ``arithmetic`` is their number format
    arithmetic: str = "fp32"
    collectives: int = 0
    routes: bool = False

    @property
    def world(self) -> int:
        return self.dp * self.tp * self.pp

    def coordinates(self, rank: int) -> dict[str, int]:
        """tp runs fastest, then dp, then pp; ep is the low part of dp."""
        tp, dp, pp = rank % self.tp, rank // self.tp % self.dp, rank // (self.tp * self.dp)
        return {"dp": dp, "tp": tp, "pp": pp, "cp": 0, "ep": dp % self.ep, "mp": pp * self.tp + tp}

    def expert_group(self, rank: int) -> tuple[int, int, int]:
        place = self.coordinates(rank)
        return place["pp"], place["tp"], place["dp"] // self.ep

    @property
    def sizes(self) -> dict[str, int]:
        return {"dp": self.dp, "tp": self.tp, "pp": self.pp, "cp": 1, "ep": self.ep, "mp": self.tp * self.pp}

    def local_experts(self, rank: int) -> tuple[int, ...]:
        held = self.experts // self.ep
        first = self.coordinates(rank)["ep"] * held
        return tuple(range(first, first + held))
