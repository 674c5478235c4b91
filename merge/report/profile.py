"""The work and the time of an iteration: of modules, and outside of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ModuleStats:
    """One row of the merged module tree; rows are in depth-first order of the model.

    ``params``, ``macs``, ``flops`` and the ``*_ns`` without ``self`` include the modules inside.  Work is the mean, and
    time the median, over the ``ranks`` that have this module.  ``label`` is unique in the report.
    """

    label: str
    name: str
    class_name: str
    root: int  # number of the model; all stages of a pipeline are one model
    stage: int | None  # of the pipeline, where other stages have different modules of this name
    parent: int  # index in Report.modules, -1 for a root
    depth: int
    extra_repr: str
    wrapper: bool
    ranks: int
    params: float
    own_params: float
    calls: float
    macs: float | None
    flops: float | None
    self_macs: float | None
    bwd_macs: float | None
    bwd_flops: float | None
    recompute_flops: float | None
    forward_ns: float | None
    backward_ns: float | None
    forward_self_ns: float | None
    backward_self_ns: float | None


def _no_times() -> npt.NDArray[np.float64]:
    return np.empty((0, 0))


@dataclass(frozen=True, eq=False)
class ModuleTimes:
    """The times of all modules on all ranks: medians over the timed steps, in ns.

    Each array is (modules, ranks), with modules in the order of ``Report.modules``.  NaN: the rank has no such module,
    no rank called it, or the rank timed no step.  Waits in collectives are included.
    """

    ranks: tuple[int, ...] = ()
    forward_self_ns: npt.NDArray[np.float64] = field(default_factory=_no_times)
    backward_self_ns: npt.NDArray[np.float64] = field(default_factory=_no_times)
    forward_ns: npt.NDArray[np.float64] = field(default_factory=_no_times)  # this and the next with the modules inside
    backward_ns: npt.NDArray[np.float64] = field(default_factory=_no_times)


@dataclass(frozen=True)
class WorkRow:
    """The flops of one iteration in one place, means over the ranks; None for kinds of work that do not occur there."""

    where: str  # "modules", "(outside modules)", "(optimizer)"
    forward_flops: float | None = None
    backward_flops: float | None = None
    recompute_flops: float | None = None
    optimizer_flops: float | None = None

    @property
    def flops(self) -> float:
        """The sum of all kinds."""
        return sum(
            part or 0 for part in (self.forward_flops, self.backward_flops, self.recompute_flops, self.optimizer_flops)
        )


@dataclass(frozen=True)
class OpStats:
    """One op in one kind of work, over the calls of one iteration: means over the ranks that recorded ops."""

    name: str
    kind: str  # forward, backward, recompute, ...
    calls: float
    macs: float
    flops: float
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
