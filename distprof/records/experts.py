"""MoE layers, the tokens of their experts, and the choices of their routers."""

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
    axis: str = "ep"  # over which its experts are distributed
    top_k: Natural = 0  # experts for each token; 0: not known
    counted: bool = True  # whether expert_load records have its tokens


@dataclass(frozen=True)
class ExpertLayers:
    """The MoE layers that this rank found.  The last one of a shard is valid."""

    KIND: ClassVar[str] = "expert_layers"
    layers: tuple[ExpertLayer, ...]


@dataclass(frozen=True, eq=False)
class ExpertLoad(Bulky):
    """Tokens that each local expert processed in one timed step.

    ``tokens`` has the ``local_experts`` of all layers of :class:`ExpertLayers` that are ``counted``, in that order.
    ``unseen``: the numbers of the layers, in that order, of which nothing was seen in this step (they were not called,
    or ran inside compiled code): their zeros have no meaning.
    """

    KIND: ClassVar[str] = "expert_load"
    iteration: Natural
    tokens: Array = bulk("<i8")
    unseen: tuple[Index, ...] = ()


@dataclass(frozen=True, eq=False)
class ExpertRouting(Bulky):
    """The choices of routers for this rank's own tokens in one timed step, before tokens were dropped.

    ``layers``: the numbers of the layers whose routing was seen, in the order of :class:`ExpertLayers`.  ``routed``:
    how often each of a layer's ``num_experts`` was chosen, layer after layer.  ``drops_known``: the layers among them
    whose drops were seen too.  ``dropped`` is as long as ``routed``, or empty where all choices were kept.
    ``aux_loss``: for each of ``layers`` the sum over its ``aux_calls`` (router calls that had a loss), or empty.
    """

    KIND: ClassVar[str] = "expert_routing"
    iteration: Natural
    layers: tuple[Index, ...]
    routed: Array = bulk("<u4")
    drops_known: tuple[Index, ...] = ()
    dropped: Array = bulk("<u4")
    aux_loss: Array = bulk("<f8")
    aux_calls: Array = bulk("<u4")
