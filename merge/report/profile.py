"""Where the work and the time of an iteration go: modules, and what lies outside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModuleStats:
    """One row of the merged module tree, rows in depth-first order of the model.

    ``params``, ``macs``, ``flops`` and the ``*_ns`` without ``self`` are inclusive; means (work) and medians (time)
    over ``ranks``, the ranks that have this module.  ``label`` is unique in the report and fit for people.
    """

    label: str
    name: str
    class_name: str
    root: int  # number of the model; stages of a pipeline are one
    stage: int | None  # of the pipeline, where other stages have other modules of this name
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


@dataclass(frozen=True)
class WorkRow:
    """Flops of one iteration that belong together, means over the ranks; None for what there cannot be any of."""

    where: str  # "modules", "(outside modules)", "(optimizer)"
    forward_flops: float | None = None
    backward_flops: float | None = None
    recompute_flops: float | None = None
    optimizer_flops: float | None = None

    @property
    def flops(self) -> float:
        """All of them."""
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
    """Kernels that the compiler made itself for one compiled module, which ran in the counted step and are not counted.

    ``kernels`` has their calls on all ranks by name; ``module`` is its label, empty for a compiled function.
    """

    module: str
    kernels: dict[str, int]

    @property
    def attention(self) -> dict[str, int]:
        """The kernels that are attention, by their names: those of a template, not those that work on its output."""
        return {name: calls for name, calls in self.kernels.items() if _is_attention(name)}


def _is_attention(kernel: str) -> bool:
    name = kernel.lower()
    return "flex_attention" in name or "flexattention" in name or ("_tem_" in name and "attention" in name)
