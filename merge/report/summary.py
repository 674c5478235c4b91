"""The job and its model in figures."""

from __future__ import annotations

from dataclasses import dataclass, field


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
class Evaluations:
    """Timed steps in which some rank evaluated a model, that is, ran it without gradient inside training."""

    steps: int
    timed_steps: int  # of how many
    time_ns: Spread | None  # in a step that has one, of the ranks that ran any; None where none ran


@dataclass(frozen=True)
class Summary:
    """The Profile Summary.  Everything is per iteration (all micro-batches) unless it says per micro-batch.

    "Per rank" figures are means over the ranks; ``params_of_model`` and ``fwd_*_of_model`` are DeepSpeed's estimate
    (mean over one model-parallel group x mp); ``exact`` ones are unions over the ranks, and "at least" when
    ``exact_covers_all`` is False.
    """

    batch_size_per_rank: float | None  # of one micro-batch; of a pipeline's first stage
    batch_found: str  # how the batch size was found, or why it was not; empty where no rank said
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
    samples_per_second: float | None  # of the whole job, over the wall iteration with its share of evaluations
    evaluations: Evaluations
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
class EvaluatedModel:
    """A model that a training job calls without gradient only; its parameters are in no sum of the trained model's."""

    name: str  # its class, or its name in the module that holds it
    params: int  # the union over the ranks
    root: int  # number of the model, as Report.modules has it


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
    evaluated: tuple[EvaluatedModel, ...] = ()  # models that are not trained
    assumes_replicas: bool = False  # that all ranks hold the same of parameters of which nothing says so
