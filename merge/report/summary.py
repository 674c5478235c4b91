"""The figures of the whole job and its model."""

from __future__ import annotations

from dataclasses import field

from distprof.plain import dataclass


@dataclass(frozen=True)
class Spread:
    """One figure over the ranks that have a value."""

    min: float  # the least
    median: float  # the middle one, or the mean of the two in the middle
    max: float  # the largest
    mean: float  # sum / number of ranks
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

    steps: int  # how many were timed
    median_ns: float  # over the iterations
    mean_ns: float  # over the iterations
    p95_ns: float  # 1 of 20 iterations is longer, interpolated
    max_ns: float  # of the longest iteration
    long: tuple[int, ...]  # iterations that took more than LONG_STEP x the median


@dataclass(frozen=True)
class Evaluations:
    """Timed steps in which a rank evaluated a model: it ran the model without gradient during training."""

    steps: int  # in which a rank evaluated a model
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
    micro_batches: float | None  # forwards of one rank in an iteration
    samples_per_iteration: float | None  # of the whole job: data-parallel ranks x micro-batches x batch size
    params_per_rank: Spread | None  # parameters that a rank holds or shares
    params_of_model: float | None  # DeepSpeed's estimate of the parameters of the model
    params_exact: int | None  # parameters of the model: each distinct one once
    trainable_params_exact: int | None  # those of them that require a gradient
    exact_covers_all: bool  # whether the exact figures include all ranks and parameters
    fwd_macs_per_rank: float | None  # MACs of forward
    fwd_flops_per_rank: float | None  # flops of forward
    fwd_flops_of_model: float | None  # DeepSpeed's estimate of the flops of forward of the model
    fwd_latency_ns: Spread | None  # the phase forward
    bwd_macs_per_rank: float | None  # MACs of backward, without recomputed ones
    bwd_flops_per_rank: float | None  # without recomputed flops
    recompute_flops_per_rank: float | None  # run again in backward by activation checkpointing
    bwd_latency_ns: Spread | None  # the phase backward
    step_latency_ns: Spread | None  # the optimizer phase
    iter_latency_ns: Spread | None  # DeepSpeed's: forward + backward + optimizer
    wall_iteration_ns: Spread | None  # the whole iteration, data wait included
    fwd_flops_per_second: float | None  # per rank
    bwd_flops_per_second: float | None  # per rank, with recomputed flops
    fwd_bwd_flops_per_second: float | None  # per rank, forward and backward together
    flops_per_second: float | None  # per rank, over iter latency
    iterations: Iterations | None  # wall times of the timed iterations; null where no step was timed
    samples_per_second: float | None  # of the whole job, over all timed steps
    samples_per_second_at_median: float | None  # at the median wall iteration
    evaluations: Evaluations  # models that ran without gradient in the timed steps
    uncounted_ops: dict[str, int] = field(default_factory=dict)  # calls on all ranks of ops without a formula, by name
    unavailable: dict[str, str] = field(default_factory=dict)  # field name -> why it is None
    tokens_per_iteration: float | None = None  # of the whole job: ids that models are given first, padding included
    tokens_per_second: float | None = None  # of the whole job, over all timed steps
    throughputs_differ: bool = False  # whether the two rates of samples differ by 2 % or more


@dataclass(frozen=True)
class ModelWork:
    """The forward of the whole model on the batch of one data-parallel replica, all micro-batches of an iteration.

    Lower bounds where ``covers_all`` is False: not every rank counted.
    """

    macs: float  # repeated work of tensor-parallel ranks counts once
    flops: float  # likewise; with operations that are no MACs
    executed_macs: float  # all that ran
    executed_flops: float  # all that ran
    useful_macs: float | None  # without work of experts on padding; None where it cannot be known
    useful_flops: float | None  # likewise
    covers_all: bool  # whether every rank counted


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
