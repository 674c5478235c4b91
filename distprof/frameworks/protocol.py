"""What distprof asks of a training stack: a class for each, answering what it knows and nothing else.

One is asked only in a process that has imported its package; it imports nothing itself, but looks into ``sys.modules``.
It never communicates, changes nothing, and holds nothing of the script's alive.  If it raises, its answer is missing,
and the report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterLayout:
    """Elements of one parameter: in this rank's memory, on this rank with data-parallel sharding undone, and in the
    whole; and its layout as :class:`distprof.records.Parameter` has it.
    """

    local_numel: int
    rank_numel: int
    global_numel: int
    sharded: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    shared_as: str = ""


@dataclass(frozen=True)
class Routing:
    """What one call of a router decided, as int64 tensors of counts by global expert, on its device.

    ``routed``: how often each was chosen; ``kept``: how often after capacity dropped some, None where the router cannot
    tell; ``aux_loss``: a scalar.
    """

    routed: Tensor
    kept: Tensor | None = None
    aux_loss: Tensor | None = None


#: (a router's output, number of experts of the layer) -> what it decided; None where it is not understood.
ReadRouter = Callable[[Any, int], Routing | None]
#: (arguments of the module that computes all experts, how many experts are counted) -> tokens by expert, likewise.
ReadArguments = Callable[[tuple[Any, ...], int], Tensor | None]


@dataclass(frozen=True)
class Experts:
    """The experts of one MoE layer that this rank hosts, in the order of their global ids, and where counts are read.

    ``modules``: the submodules that are one expert each; the rows of their inputs are their loads, unless they are
    ``padded``.  Empty where one module computes all: then ``holder`` is that one, and ``local`` says how many it has.
    ``axis``: over which they are shared out, contiguously.

    ``router``: the submodule whose output ``read_router`` understands.  Of the holder's arguments ``read_handed`` reads
    what this rank's tokens were given to (by global expert), ``read_processed`` what its experts got from all ranks (by
    local expert).  Readers are functions that hold no module, keep no tensor and wait for no device; see
    :mod:`distprof.frameworks.routing_readers` for some.  ``shared``: submodules that are experts which see every token.
    """

    num_experts: int
    modules: tuple[nn.Module, ...] = ()
    holder: nn.Module | None = None
    local: int = 0
    axis: str = "ep"
    top_k: int = 0
    shared: tuple[nn.Module, ...] = ()
    padded: bool = False
    router: nn.Module | None = None
    read_router: ReadRouter | None = None
    read_handed: ReadArguments | None = None
    read_processed: ReadArguments | None = None


class Framework:
    """A training stack.  Every answer has a default that says nothing."""

    #: How the report calls it.
    name = ""
    #: Asked only when the script has imported this.
    package = ""

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        """By axis (dp, tp, pp, cp, ep; finer ones: dp_replicate, dp_shard, sp, etp, edp, ep_size_N) the global ranks of
        the group along it that global ``rank`` is in, in the order of their coordinates.  ``models`` are the root
        modules that have run so far.
        """
        return {}

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> ParameterLayout | None:
        """How a parameter of ``owner`` is laid out; None when it is not this stack's.  ``name`` is its whole name in
        the model.  Of an ``expert``'s, the whole is what it and its like of the same global ids are.
        """
        return None

    def experts(self, module: nn.Module) -> Experts | None:
        """The experts of ``module``, if it is a MoE layer of this stack."""
        return None

    def child_name(self, parent: nn.Module, name: str, child: nn.Module) -> str:
        """The model's own name of a child: a pipeline stage may count its layers from 0."""
        return name
