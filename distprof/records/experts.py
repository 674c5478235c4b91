"""MoE layers, the tokens of their experts, and the choices of their routers."""

from __future__ import annotations

from typing import ClassVar

from distprof.plain import dataclass
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
    guessed: bool = False  # found by its weights or its calls: no name says that these are experts


@dataclass(frozen=True)
class Suspect:
    """A module that may be a MoE layer, by a name or by a config, but in which no experts are understood.

    ``row`` is the module's; ``why`` names the class of the module, or the attribute of its config.
    """

    name: str
    row: Row
    why: str
    by_config: bool = False  # the config of a model in which this rank found no MoE layer


@dataclass(frozen=True)
class ExpertLayers:
    """The MoE layers that this rank found, and what may be others.  The last one of a shard is valid."""

    KIND: ClassVar[str] = "expert_layers"
    layers: tuple[ExpertLayer, ...]
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, eq=False)
class LayerCalls(Bulky):
    """The tokens of one layer's local experts in each of several calls in one step: one for each micro-batch.

    ``tokens``: of all local experts together; ``largest``: of the one with most; ``hottest``: which one that is, by its
    place in ``local_experts``, the first of equal ones.
    """

    layer: Index  # its number, in the order of ExpertLayers
    tokens: Array = bulk("<u4")
    largest: Array = bulk("<u4")
    hottest: Array = bulk("<u4")


@dataclass(frozen=True, eq=False)
class ExpertLoad(Bulky):
    """Tokens that each local expert processed in one timed step.

    ``tokens`` has the ``local_experts`` of all layers of :class:`ExpertLayers` that are ``counted``, in that order.
    ``unseen``: the numbers of the layers, in that order, of which nothing was seen in this step (they were not called,
    or ran inside compiled code): their zeros have no meaning.  ``calls``: the layers that were called more than once.
    """

    KIND: ClassVar[str] = "expert_load"
    iteration: Natural
    tokens: Array = bulk("<i8")
    unseen: tuple[Index, ...] = ()
    window: Natural = 0
    calls: tuple[LayerCalls, ...] = ()


@dataclass(frozen=True, eq=False)
class LayerRouting(Bulky):
    """The choices of the router of one layer in one step, before tokens were dropped.

    ``routed``: how often each of the ``num_experts`` was chosen, by global id.  ``dropped``: how many of these choices
    were dropped; empty where none was, and where that is not known.  ``lost``: dropped choices of which the expert is
    not known; ``routed`` lacks them.  ``aux_loss``: the sum of the auxiliary losses of
    ``aux_calls`` router calls, one number; empty without such a call.  ``handed``: the router's output was not
    read, and ``routed`` has the tokens that experts were handed, after drops if there were any; or it was read in
    compiled code, of a layer that is not known to drop any.  ``kept_by_call``: call
    after call, how often each of the ``num_experts`` was chosen and not dropped, where a layer that is not ``counted``
    was called more than once.  ``capacity``: how many choices of this rank one expert can take in all of these calls; 0
    where there is no limit, or it is not known.
    """

    layer: Index  # its number, in the order of ExpertLayers
    routed: Array = bulk("<u4")
    drops_known: bool = False
    dropped: Array = bulk("<u4")
    aux_loss: Array = bulk("<f8")
    aux_calls: Natural = 0
    lost: Natural = 0
    handed: bool = False
    kept_by_call: Array = bulk("<u4")
    capacity: Natural = 0


@dataclass(frozen=True, eq=False)
class RouterFigures(Bulky):
    """What the router of one layer shows in the counted step, beside its choices.

    ``masked_tokens``: the tokens of an attention mask that the router's tokens are those of, 0 where no mask was seen;
    ``padding_tokens``: how many of them are padding; ``padding``: how often padding chose each of the ``num_experts``,
    by global id, without dropped choices; empty where no mask was seen.  ``scored_tokens``: the tokens whose scores
    were seen; ``entropy``: the sum of the entropies of their shares / ln(num_experts), one number, and ``z_loss``: the
    sum of the squares of logsumexp of their logits, one number; each empty where it is not known.
    """

    layer: Index  # its number, in the order of ExpertLayers
    masked_tokens: Natural = 0
    padding_tokens: Natural = 0
    padding: Array = bulk("<u4")
    scored_tokens: Natural = 0
    entropy: Array = bulk("<f8")
    z_loss: Array = bulk("<f8")


@dataclass(frozen=True)
class ExpertRouting:
    """The choices of routers for this rank's own tokens in one step, of the layers whose routing was seen.

    ``figures``: what else was seen of routers, in the counted step only.
    """

    KIND: ClassVar[str] = "expert_routing"
    iteration: Natural
    layers: tuple[LayerRouting, ...]
    window: Natural = 0
    figures: tuple[RouterFigures, ...] = ()
