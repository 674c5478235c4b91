"""The merged answer as plain data: what the analysis fills in, and what text, JSON and plots are drawn from.

``summary.json`` is this module's :class:`Report`, field by field, under :data:`REPORT_SCHEMA`.  Units are suffixes.
A value that was not measured is None, and ``unavailable`` says why, by the field's name; nothing is ever 0 for want
of data.

*Latencies* are medians over a rank's timed steps first; a :class:`Spread` is over ranks.  *Inclusive* numbers of a
module are sums of exclusive ones over its subtree.  A *cohort* is the set of ranks of one role: all coordinates equal
but ``dp`` and ``ep``; ranks are compared within their cohort only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

REPORT_SCHEMA = "distprof.report/1"


@dataclass(frozen=True)
class Spread:
    """One figure over the ranks that have it."""

    min: float
    median: float
    max: float
    mean: float
    slowest_rank: int  # the rank of the maximum

    @property
    def ratio(self) -> float | None:
        """max / median, None where the median is 0."""
        return self.max / self.median if self.median else None


@dataclass(frozen=True)
class RunInfo:
    """What was merged, and what is not there."""

    run_id: str
    name: str
    script: str
    world_size: int
    ranks: tuple[int, ...]  # recorded, ascending
    missing_ranks: tuple[int, ...]
    incomplete: dict[int, str]  # rank -> why its window is not full
    device: str  # torch's device type: "cpu", "cuda"
    device_name: str
    hosts: tuple[str, ...]
    torch: str
    mode: str  # records.TRAINING or records.FORWARD: what an iteration is
    planned_timed_steps: int
    notes: tuple[str, ...] = ()  # damaged shards, assumptions, disagreements: one sentence each, for the first page

    @property
    def unit(self) -> str:
        """What one worker is called: DeepSpeed says GPU."""
        return "rank" if self.device in ("cpu", "meta") else "GPU"


@dataclass(frozen=True)
class TopologyInfo:
    """Parallel axes of the job; ``sizes`` has every axis of records.AXES, and mp, and finer ones where they are known.

    Every rank's coordinates on the same axes stand in its :class:`RankRow`.
    """

    source: str  # who told most of it, in the words of records.Topology
    sizes: dict[str, int]
    sources: dict[str, str]  # who told each axis, where that is known


@dataclass(frozen=True)
class Summary:
    """The Profile Summary.  Everything is per iteration (all micro-batches) unless it says per micro-batch.

    "Per rank" figures are means over the ranks; ``params_of_model`` and ``fwd_*_of_model`` are DeepSpeed's estimate
    (mean over one model-parallel group x mp); ``exact`` ones are unions over the ranks, and "at least" when
    ``exact_covers_all`` is False.
    """

    batch_size_per_rank: float | None  # of one micro-batch; of a pipeline's first stage
    micro_batches: float | None
    samples_per_iteration: float | None  # of the whole job: data-parallel ranks only
    params_per_rank: Spread | None
    params_of_model: float | None
    params_exact: int | None
    trainable_params_exact: int | None
    exact_covers_all: bool
    fwd_macs_per_rank: float | None
    fwd_flops_per_rank: float | None
    fwd_flops_of_model: float | None
    fwd_latency_ns: Spread | None
    bwd_macs_per_rank: float | None
    bwd_flops_per_rank: float | None  # without what was recomputed
    recompute_flops_per_rank: float | None  # run again in backward, by checkpointing
    bwd_latency_ns: Spread | None
    step_latency_ns: Spread | None  # the optimizer phase
    iter_latency_ns: Spread | None  # DeepSpeed's: forward + backward + optimizer
    wall_iteration_ns: Spread | None  # ours: everything, data wait included
    fwd_flops_per_second: float | None  # per rank
    bwd_flops_per_second: float | None  # per rank, what was recomputed included
    fwd_bwd_flops_per_second: float | None
    flops_per_second: float | None  # per rank, over iter latency
    samples_per_second: float | None  # of the whole job, over the wall iteration
    uncounted_ops: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)  # field name -> why it is None


@dataclass(frozen=True)
class ModelWork:
    """The forward of the whole model on the batch of one data-parallel replica, all micro-batches of an iteration.

    Lower bounds where ``covers_all`` is False: not every rank counted.
    """

    macs: float  # what tensor-parallel ranks do alike counted once
    flops: float
    executed_macs: float  # as often as it ran
    executed_flops: float
    useful_macs: float | None  # without what experts did on padding; None where that cannot be told
    useful_flops: float | None
    covers_all: bool


@dataclass(frozen=True)
class ModelTotals:
    """The model as a whole, as the ranks together hold it; ``summary`` has the sizes that these split.

    Lower bounds where ``summary.exact_covers_all`` is False.
    """

    params_by_kind: dict[str, int]  # of records.KINDS, those that are there: dense, expert, ...
    active_params: int | None  # that work on one token; None where the top-k of a layer is not known
    active_is_measured: bool  # by rows of experts / tokens of routers, where a stack does not say its top-k
    uncovered: tuple[str, ...]  # coordinates of which no rank told its parameters, such as "pp 1" or "ep 2-3"
    forward: ModelWork | None  # None where nothing was counted
    why_no_forward: str = ""  # why it is None although something was


@dataclass(frozen=True)
class PeakUsed:
    """What one kind of device does at most in one arithmetic, as MFU has it."""

    device: str  # what it calls itself
    threads: int  # of the CPU; 0: the whole device
    arithmetic: str
    tflops: float
    source: str
    share: float  # of the model's MACs, of all ranks


@dataclass(frozen=True)
class UtilizationSpread:
    """MFU or HFU, 1 being all: of the job, and the least and the largest of its ranks."""

    job: float
    min: float
    max: float
    ranks: int  # that have it


@dataclass(frozen=True)
class Utilization:
    """How much of the devices' peak was used; see :mod:`distprof.merge.utilization` for what counts.

    ``model_flops_per_rank`` (forward and backward, each once in the job) and ``hardware_flops_per_rank`` (what ran) are
    2 x MACs, means over the ranks.
    """

    mfu: UtilizationSpread | None
    hfu: UtilizationSpread | None
    at_least: bool  # something that ran is not in it
    model_flops_per_rank: float | None
    hardware_flops_per_rank: float | None
    peaks: tuple[PeakUsed, ...]
    unavailable: str  # why there is no MFU
    to_do: str  # and what to type, if that helps


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


@dataclass(frozen=True)
class RankRow:
    """One rank: where it is, and its own medians over timed steps."""

    rank: int
    coordinates: dict[str, int]
    cohort: int  # cohorts are numbered from 0
    host: str
    complete: bool
    steps: int  # timed steps recorded
    iteration_ns: float | None
    phases_ns: dict[str, float | None]  # keys of records.PHASES; None: could not be seen
    parameter_bytes: int | None  # local bytes between two iterations, these three
    gradient_bytes: int | None
    optimizer_bytes: int | None  # state, and copies of parameters that the optimizer steps in
    peak_memory_bytes: int | None
    memory_source: str
    params: int | None
    fwd_macs: float | None
    mfu: float | None
    hfu: float | None
    step_iterations: tuple[int, ...] = ()
    step_durations_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class StageRow:
    """One pipeline stage, over its ranks and their timed steps; merge/pipeline.py has the formulas."""

    stage: int  # coordinate on pp
    virtual_stages: int  # stages of the model on each of its ranks
    ranks: tuple[int, ...]
    micro_batches: float | None
    forward_ns: float  # in modules
    backward_ns: float
    waiting_ns: float
    bubble: float | None  # the share of the schedule's time in which the stage waits
    ideal_bubble: float | None


@dataclass(frozen=True)
class MemoryDifference:
    """A rank that holds more or less than its cohort."""

    rank: int
    what: str  # "parameters", "gradients", "optimizer state" or "peak"
    own_bytes: int
    cohort_bytes: float  # the median of its cohort


@dataclass(frozen=True)
class SkewRow:
    """How far the ranks disagree on one phase, or on one module's self time in one phase.

    ``excess_ns`` is the largest (rank - its cohort's median), the figure by which rows are ranked, and
    ``slowest_rank`` is its rank.
    """

    subject: str  # phase name, or module label
    phase: str  # "iteration", or one of records.PHASES
    min_ns: float
    median_ns: float
    max_ns: float
    ratio: float | None  # max / median
    excess_ns: float
    slowest_rank: int
    ranks: int


@dataclass(frozen=True)
class SkewMap:
    """Self time of the modules on which ranks disagree most: one row a rank, one column a (module, phase)."""

    ranks: tuple[int, ...]
    subjects: tuple[str, ...]  # module labels
    phases: tuple[str, ...]  # "forward" or "backward", one a column
    self_ns: tuple[tuple[float | None, ...], ...]  # [rank][column]; None: the rank has no such module
    excess_ns: tuple[tuple[float | None, ...], ...]  # the same, minus the median of the rank's cohort


@dataclass(frozen=True)
class Suspect:
    """A rank and where its largest excess is."""

    rank: int
    subject: str  # module label, or phase name
    phase: str
    excess_ns: float


@dataclass(frozen=True)
class Suspects:
    """The rank of the largest excess; or several ranks of one group, nearly as far above their medians: in such a group
    one computes while the others wait, and the cause is among them.
    """

    ranks: tuple[Suspect, ...]  # largest excess first
    axis: str  # of the group that several share, empty for one
    likely: int | None  # the one of them that the others seem to wait for, None where that cannot be told


@dataclass(frozen=True)
class Skew:
    phases: tuple[SkewRow, ...]
    modules: tuple[SkewRow, ...]  # largest excess first
    map: SkewMap
    too_few: str = ""  # why nobody is named (a cohort of fewer than 3 ranks, too few ranks recorded), or empty
    suspects: Suspects | None = None  # None where nobody is named, or nobody has an excess


@dataclass(frozen=True)
class ExpertLayerStats:
    """One MoE layer over all ranks and timed steps."""

    name: str
    num_experts: int
    top_k: int | None  # experts that see a token
    steps: int
    tokens: tuple[int | None, ...]  # processed, by global expert; None: no recorded rank hosts it, or that was not seen
    hosts: tuple[tuple[int, ...], ...]  # by global expert: the ranks that host it
    ep_tokens: tuple[int | None, ...]  # by coordinate on the axis that spreads them: tokens of its experts
    ep_max_over_mean: float | None  # 1 when the ranks' loads are balanced; None where they are not spread
    max_over_mean: float | None
    hottest: int | None
    dead: tuple[int, ...]  # experts with 0 tokens
    routed: tuple[int, ...]  # by global expert, how often routers chose it; none where that was not seen
    dropped: int | None  # of these, over all experts
    drop_rate: float | None
    aux_loss: float | None  # mean over the router's calls, and over ranks


@dataclass(frozen=True)
class Report:
    run: RunInfo
    topology: TopologyInfo
    summary: Summary
    model: ModelTotals
    utilization: Utilization
    modules: tuple[ModuleStats, ...]
    ranks: tuple[RankRow, ...]
    memory: tuple[MemoryDifference, ...]  # the largest first
    pipeline: tuple[StageRow, ...]  # none without pipeline parallelism
    skew: Skew
    experts: tuple[ExpertLayerStats, ...]
    work: tuple[WorkRow, ...] = ()  # all of an iteration's flops; none when no rank counted
    generated: tuple[CompiledRegion, ...] = ()  # in the order of the model
    ops: tuple[OpStats, ...] = ()  # most flops first, then most time; where a process profiled itself
    schema: str = REPORT_SCHEMA
