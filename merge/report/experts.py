"""The load of the experts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExpertLayerStats:
    """One MoE layer over all ranks and timed steps."""

    name: str  # of the module in the model
    num_experts: int  # experts of the layer, on all ranks
    top_k: int | None  # experts that process one token
    steps: int  # timed iterations whose tokens are summed
    tokens: tuple[
        int | None, ...
    ]  # processed, by global expert; None: no recorded host, or its tokens were not counted
    expert_ranks: tuple[tuple[int, ...], ...]  # by global expert: the ranks that host it
    ep_tokens: tuple[int | None, ...]  # by coordinate on the axis that distributes experts
    ep_max_over_mean: float | None  # 1 when ranks have equal loads; None where experts are not distributed
    max_over_mean: float | None  # largest load / mean load; null where not all loads are known
    hottest: int | None  # the expert with the largest load; null where none is known
    dead: tuple[int, ...]  # experts with 0 tokens
    routed: tuple[int, ...]  # by global expert, how often routers chose it; empty where routing was not seen
    dropped: int | None  # of ``routed``, over all experts
    drop_rate: float | None  # dropped / (routed + lost)
    aux_loss: float | None  # mean over the router's calls, and over ranks
    ep_own_ns: tuple[
        float | None, ...
    ] = ()  # by ep coordinate: own time in the layer, forward and backward; empty where waits are not known
    ep_cost_ns: float | None = None  # the largest of these - their mean
    lost: int = 0  # dropped choices that ``routed`` lacks, because their expert is not known
    guessed: bool = False  # found by its weights alone: no name says that these are experts
    breach: str = ""  # a step in which chosen - dropped is not what was processed, as a sentence
