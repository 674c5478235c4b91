"""The interface between distprof and a training stack: one class for each stack, which answers only what it knows.

A class is asked only if the process has imported its package; it imports nothing itself, and reads ``sys.modules``.  It
never communicates, changes nothing, and keeps no object of the script alive.  If it raises, its answer is missing, and
the report says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterLayout:
    """The size and the layout of one parameter; fields are as in :class:`distprof.records.Parameter`.

    Sizes are in elements: in this rank's memory, on this rank without data-parallel sharding, and in all.
    """

    local_numel: int
    rank_numel: int
    global_numel: int
    sharded: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    shared_as: str = ""


class Routing(NamedTuple):
    """The decision of one call of a router, as int64 tensors of counts by global expert, on the router's device.

    ``routed``: how often each expert was chosen; ``kept``: the same after drops by capacity, None if the output lacks
    it; ``aux_loss``: a scalar.  ``choices``: how many choices were made, where ``routed`` may lack dropped ones; 0 if
    it lacks none.  ``must_be_all``: the form was guessed, and is wrong if ``routed`` has another number of choices.
    ``capacity``: how many of these choices one expert can take; 0 where the layer has no limit, or it is not known.
    ``uncopied``: those of all these tensors that the script may change before the step ends.
    """

    routed: Tensor
    kept: Tensor | None = None
    aux_loss: Tensor | None = None
    choices: int = 0
    must_be_all: bool = False
    capacity: int | Tensor = 0
    uncopied: tuple[Tensor, ...] = ()


#: (a router's output, number of experts of the layer) -> its decision; None if the output has an unknown form.
ReadRouter = Callable[[Any, int], Routing | None]
#: (arguments of the module that computes all experts, number of experts that are counted) -> tokens by expert, or None.
ReadArguments = Callable[[tuple[Any, ...], int], Tensor | None]
#: The same, where the arguments may show a router's whole decision.
ReadHanded = Callable[[tuple[Any, ...], int], Tensor | Routing | None]


@dataclass(frozen=True)
class Experts:
    """The experts of one MoE layer that this rank hosts, in the order of their global ids, and readers of their counts.

    ``modules``: the submodules that are one expert each; the rows of their inputs are their loads, unless they are
    ``padded``.  Empty if one module computes all experts: then ``holder`` is that module, and ``local`` their number.
    ``axis``: the axis over which the experts are distributed, contiguously.

    ``router``: the submodule whose output ``read_router`` reads.  From the holder's arguments ``read_handed`` reads the
    experts of this rank's tokens (counts by global expert, or what was chosen and what was kept), and
    ``read_processed`` the tokens that its experts got from all ranks (by local expert).  Readers are functions that
    refer to no module, keep no tensor and wait for no device; :mod:`distprof.frameworks.routing_readers` has some.
    ``shared``: submodules that are experts for every token.

    ``ids``: the global ids of the local experts, where they do not follow from the rank's place.  ``parts``: further
    submodules with weights of the same experts.  ``own``: the names of the module's own parameters that are weights of
    its experts; it is its own ``holder`` then.  ``guessed``: no name says that these are experts.
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
    read_handed: ReadHanded | None = None
    read_processed: ReadArguments | None = None
    ids: tuple[int, ...] = ()
    parts: tuple[nn.Module, ...] = ()
    own: tuple[str, ...] = ()
    guessed: bool = False


class Framework:
    """A training stack.  Every method has a default that gives no answer."""

    #: The stack's name in the report.
    name = ""
    #: The stack is asked only if the script has imported this package.
    package = ""

    def groups(self, models: Sequence[nn.Module], rank: int) -> Mapping[str, Sequence[int]]:
        """Maps axes to the global ranks of the group of ``rank`` (global) on each, in the order of their coordinates.

        Axes are dp, tp, pp, cp, ep, and finer ones: dp_replicate, dp_shard, sp, etp, edp, ep_size_N.  ``models`` are
        the root modules that have run so far.
        """
        return {}

    def layout(self, owner: nn.Module, name: str, parameter: nn.Parameter, *, expert: bool) -> ParameterLayout | None:
        """Returns the layout of a parameter of ``owner``; None if it is not this stack's.

        ``name`` is its full name in the model.  For an ``expert``, the global size covers only its own global ids.
        """
        return None

    def experts(self, module: nn.Module) -> Experts | None:
        """Returns the experts of ``module`` if it is a MoE layer of this stack, else None."""
        return None

    def child_name(self, parent: nn.Module, name: str, child: nn.Module) -> str:
        """Returns a child's name in the whole model: a pipeline stage may number its layers from 0."""
        return name
