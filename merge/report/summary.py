"""The figures of the whole job and its model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spread:
    """One figure over the ranks that have a value."""

    min: float
    median: float
    max: float
    mean: float
    max_rank: int  # the lowest rank that has the maximum

    @property
    def ratio(self) -> float | None:
        """max / median, None where the median is 0."""
        return self.max / self.median if self.median else None


#: An iteration is long above this multiple of the median.
LONG_STEP = 1.5


@dataclass(frozen=True)
class Iterations:
    """The wall time of the job's timed iterations; that of one iteration is the median over the ranks."""

    steps: int
    median_ns: float
    mean_ns: float
    p95_ns: float  # 1 of 20 iterations is longer, interpolated
    max_ns: float
    long: tuple[int, ...]  # iterations that took more than LONG_STEP x the median


@dataclass(frozen=True)
class Evaluations:
    """Timed steps in which a rank evaluated a model: it ran the model without gradient during training."""

    steps: int
    timed_steps: int  # all timed steps
    time_ns: Spread | None  # in steps with an evaluation, over ranks that ran one; None without evaluations


@dataclass(frozen=True)
class Summary:
    """The Profile Summary.  All figures are for one iteration with all its micro-batches, unless noted.

    ``*_per_rank`` are means over the ranks.  ``params_of_model`` and ``fwd_*_of_model`` are DeepSpeed's estimate: the
    mean over one model-parallel group x mp.  ``*_exact`` are unions over the ranks, and lower bounds where
    ``exact_covers_all`` is False.
    """

    batch_size_per_rank: float | None  # of one micro-batch, in the first pipeline stage
    batch_found: str  # how the batch size was found, or why not; may be empty
    micro_batches: float | None
    samples_per_iteration: float | None  # of the whole job: data-parallel ranks x micro-batches x batch size
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
    bwd_flops_per_rank: float | None  # without recomputed flops
    recompute_flops_per_rank: float | None  # run again in backward by activation checkpointing
    bwd_latency_ns: Spread | None
    step_latency_ns: Spread | None  # the optimizer phase
    iter_latency_ns: Spread | None  # DeepSpeed's: forward + backward + optimizer
    wall_iteration_ns: Spread | None  # the whole iteration, data wait included
    fwd_flops_per_second: float | None  # per rank
    bwd_flops_per_second: float | None  # per rank, with recomputed flops
    fwd_bwd_flops_per_second: float | None
    flops_per_second: float | None  # per rank, over iter latency
    iterations: Iterations | None
    samples_per_second: float | None  # of the whole job, over all timed steps
    samples_per_second_at_median: float | None  # at the median wall iteration
    evaluations: Evaluations
    uncounted_ops: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)  # field name -> why it is None


@dataclass(frozen=True)
class ModelWork:
    """The forward of the whole model on the batch of one data-parallel replica, all micro-batches of an iteration.

    Lower bounds where ``covers_all`` is False: not every rank counted.
    """

    macs: float  # repeated work of tensor-parallel ranks counts once
    flops: float
    executed_macs: float  # all that ran
    executed_flops: float
    useful_macs: float | None  # without work of experts on padding; None where it cannot be known
    useful_flops: float | None
    covers_all: bool


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that a training job calls without gradient only; sums of trained models do not include it."""

    name: str  # its class, or its name in the module that holds it
    params: int  # union over the ranks
    root: int  # number of the model, as Report.modules has it


@dataclass(frozen=True)
class ModelTotals:
    """The whole model, as the union over the ranks; ``summary`` has the totals of which these are parts.

    The figures are lower bounds where ``summary.exact_covers_all`` is False.
    """

    params_by_kind: dict[str, int]  # the kinds of records.KINDS that the model has: dense, expert, ...
    active_params: int | None  # parameters that process one token; None where that is not known
    active_is_measured: bool  # as rows of experts / tokens of routers, where a stack reports no top-k
    uncovered: tuple[str, ...]  # coordinates without recorded parameters, such as "pp 1" or "ep 2-3"
    forward: ModelWork | None  # None where nothing was counted
    why_no_forward: str = ""  # why it is None although ranks counted
    evaluated: tuple[EvaluatedModel, ...] = ()  # models that are not trained
    assumes_replicas: bool = False  # some parameters are only assumed to be equal on all ranks
    why_no_active: str = ""  # why active_params is None
