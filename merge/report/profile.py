"""The work and the time of an iteration: of modules, and outside of them."""

from __future__ import annotations

from dataclasses import field

import numpy as np
import numpy.typing as npt

from distprof.plain import dataclass


@dataclass(frozen=True)
class ModuleStats:
    """One row of the merged module tree; rows are in depth-first order of the model.

    ``params``, ``macs``, ``flops`` and the ``*_ns`` without ``self`` include the modules inside.  Work is the mean, and
    time the median, over the ``ranks`` that have this module.  ``label`` is unique in the report.
    """

    label: str  # name, with what tells it from others of that name
    name: str  # in the model, as torch has it; empty for a model itself
    class_name: str  # of its class
    root: int  # number of the model; all stages of a pipeline are one model
    stage: int | None  # of the pipeline, where other stages have different modules of this name
    parent: int  # index in Report.modules, -1 for a root
    depth: int  # 0 for a model
    extra_repr: str  # what torch's extra_repr says of it
    wrapper: bool  # whether it only wraps another module, as DDP does
    ranks: int  # how many ranks have it
    params: float  # parameters
    own_params: float  # parameters without those of the modules inside
    calls: float  # in one iteration
    macs: float | None  # MACs of forward
    flops: float | None  # of forward
    self_macs: float | None  # MACs of forward, without the modules inside
    bwd_macs: float | None  # MACs of backward, without recomputed ones
    bwd_flops: float | None  # of backward, without recomputed ones
    recompute_flops: float | None  # that run again in backward
    forward_ns: float | None  # in one iteration, waits in collectives included
    backward_ns: float | None  # likewise
    forward_self_ns: float | None  # likewise, without the modules inside
    backward_self_ns: float | None  # likewise


def _no_times() -> npt.NDArray[np.float32]:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class ModuleTimes:
    """The times of all modules on all ranks: medians over the timed steps, in ns.

    Each array is (modules, ranks), with modules in the order of ``Report.modules``.  NaN: the rank has no such module,
    no rank called it, or the rank timed no step.  Waits in collectives are included.
    """

    ranks: tuple[int, ...] = ()  # the columns, ascending
    forward_self_ns: npt.NDArray[np.float32] = field(default_factory=_no_times)  # without the modules inside
    backward_self_ns: npt.NDArray[np.float32] = field(default_factory=_no_times)  # likewise
    forward_ns: npt.NDArray[np.float32] = field(default_factory=_no_times)  # with the modules inside
    backward_ns: npt.NDArray[np.float32] = field(default_factory=_no_times)  # likewise


@dataclass(frozen=True)
class WorkRow:
    """The flops of one iteration in one place, means over the ranks; None for kinds of work that do not occur there."""

    where: str  # "modules", "(outside modules)", "(optimizer)"
    forward_flops: float | None = None  # of forward
    backward_flops: float | None = None  # of backward, without recomputed ones
    recompute_flops: float | None = None  # that run again in backward
    optimizer_flops: float | None = None  # of optimizer steps

    @property
    def flops(self) -> float:
        """The sum of all kinds."""
        return sum(
            part or 0 for part in (self.forward_flops, self.backward_flops, self.recompute_flops, self.optimizer_flops)
        )


@dataclass(frozen=True)
class OpStats:
    """One op in one kind of work, over the calls of one iteration: means over the ranks that recorded ops."""

    name: str  # torch's name, as "aten::mm"
    kind: str  # forward, backward, recompute, ...
    calls: float  # in one iteration
    macs: float  # MACs
    flops: float  # of these calls
    time_ns: float | None  # in the counted step


@dataclass(frozen=True)
class CompiledRegion:
    """Kernels that the compiler generated for one module.  They ran in the counted step, but are not counted."""

    module: str  # label, empty for a compiled function
    kernels: dict[str, int]  # calls on all ranks, by name

    @property
    def attention(self) -> dict[str, int]:
        """The kernels that compute attention, recognised by the names of their templates."""
        return {name: calls for name, calls in self.kernels.items() if _is_attention(name)}


def _is_attention(kernel: str) -> bool:
    name = kernel.lower()
    return "flex_attention" in name or "flexattention" in name or ("_tem_" in name and "attention" in name)
