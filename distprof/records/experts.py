"""Layers with experts, and where their tokens went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distprof.records.fields import Array, Bulky, Index, Natural, Row, Size, bulk


@dataclass(frozen=True)
class ExpertLayer:
    """One MoE layer: the module that holds the experts, how many the model has, and which of them this rank hosts."""

    name: str
    row: Row
    num_experts: Size
    local_experts: tuple[Index, ...]  # global ids, in the order of the loads
    axis: str = "ep"  # over which its experts are shared out
    top_k: Natural = 0  # experts that see a token; 0: not known
    counted: bool = True  # whether expert_load records tell its tokens


@dataclass(frozen=True)
class ExpertLayers:
    """The MoE layers that this rank found.  The last one of a shard holds."""

    KIND: ClassVar[str] = "expert_layers"
    layers: tuple[ExpertLayer, ...]


@dataclass(frozen=True, eq=False)
class ExpertLoad(Bulky):
    """Tokens that each local expert processed in one timed step: all layers one after the other, in the order of
    :class:`ExpertLayers`, those that are ``counted``, and of their ``local_experts``.

    ``unseen``: the numbers of the layers, by that order, of which nothing was seen in this step (they were not called,
    or inside compiled code): their zeros say nothing.
    """

    KIND: ClassVar[str] = "expert_load"
    iteration: Natural
    tokens: Array = bulk("<i8")
    unseen: tuple[Index, ...] = ()


@dataclass(frozen=True, eq=False)
class ExpertRouting(Bulky):
    """Where routers sent this rank's own tokens in one timed step, before any of them was dropped.

    ``layers``: the numbers, by the order of :class:`ExpertLayers`, of those whose routing was seen.  ``routed``: one
    layer after the other, how often each of its ``num_experts`` was chosen.  Of those of them in ``drops_known`` it was
    also seen what became of the choices: ``dropped`` has as many numbers as ``routed``, or none where all were kept.
    ``aux_loss``: for each of ``layers`` the sum over its ``aux_calls`` (calls of a router that had one), or empty.
    """

    KIND: ClassVar[str] = "expert_routing"
    iteration: Natural
    layers: tuple[Index, ...]
    routed: Array = bulk("<u4")
    drops_known: tuple[Index, ...] = ()
    dropped: Array = bulk("<u4")
    aux_loss: Array = bulk("<f8")
    aux_calls: Array = bulk("<u4")
