"""The load of the experts."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class LoadMetrics:
    """How unequal the loads of experts, or of ep ranks, are; :mod:`distprof.merge.experts.metrics` has the formulas."""

    max_over_mean: float  # 1 = balanced
    max_violation: float  # MaxVio, max / mean - 1
    cv: float  # standard deviation / mean, 0 = balanced
    entropy: float  # of the shares, / ln(number of loads): 1 = balanced, 0 = all at one place
    gini: float  # 0 = balanced
    hottest: int  # number of the expert or ep coordinate with the largest load
    coldest: int  # the same with the smallest load


@dataclass(frozen=True)
class LoadsByStep:
    """How unequal loads are in each step, as in :class:`LoadMetrics`; None for a step without tokens."""

    max_violation: tuple[float | None, ...]  # MaxVio, max / mean - 1
    cv: tuple[float | None, ...]  # standard deviation / mean, 0 = balanced
    entropy: tuple[float | None, ...]  # normalised, 1 = balanced
    gini: tuple[float | None, ...]  # 0 = balanced
    hottest: tuple[int | None, ...]  # number of the largest load
    coldest: tuple[int | None, ...]  # number of the smallest load


@dataclass(frozen=True)
class LoadOverSteps(LoadsByStep):
    """The loads of one layer's experts, step by step; one value for each of ``iterations``."""

    iterations: tuple[int, ...]  # their numbers, ascending
    dead: tuple[int, ...]  # how many experts had no token
    trend: int  # of max_violation: 1 it rises, -1 it falls, 0 neither is certain
    fallen_asleep: tuple[int, ...]  # experts that had tokens, and none in the second half of the steps
    dropped: tuple[int, ...] = ()  # how many choices of the routers; empty where that is not known
    drop_rate: tuple[float | None, ...] = ()  # dropped / chosen; empty where that is not known
    ep: LoadsByStep | None = None  # the same measures of ep ranks; None where experts are not distributed


@dataclass(frozen=True)
class WorstMicroBatch:
    """The micro-batch in which the loads of one layer were least equal."""

    max_over_mean: float  # 1 = balanced
    iteration: int  # its number
    number: int  # of the micro-batch in the iteration, from 0
    hottest: int  # expert, or ep coordinate


@dataclass(frozen=True)
class MicroBatches:
    """The loads of one layer in single micro-batches, where a step has several: their sums may hide what is hot.

    Each replica of all experts has micro-batches of its own.
    """

    compared: int  # of all steps and replicas, those with tokens
    a_step: float  # micro-batches in a step, the median
    max_over_mean: float  # of experts, the median micro-batch
    worst: WorstMicroBatch  # of experts
    times_hottest: tuple[int, ...]  # by global expert: micro-batches in which it had most tokens
    ep_max_over_mean: float | None  # of ep ranks, the median micro-batch; None where experts are not distributed
    ep_worst: WorstMicroBatch | None  # of ep ranks
    worst_by_step: tuple[float | None, ...]  # max/mean of experts, by iteration of over_steps; None where not known


@dataclass(frozen=True)
class Placement:
    """Another distribution of a layer's experts over its ep ranks, with as many experts on each.

    It is fitted to the loads of every second step and judged by those of the other steps.
    """

    ep_of_expert: tuple[int, ...]  # by global expert: the ep coordinate that would host it
    max_over_mean_now: float  # of ep ranks, in the steps that judge
    max_over_mean: float  # the same with this distribution


#: What makes ep ranks differ in time; empty where nothing does.
ONLY_TOKENS, ONLY_DEVICE, TOKENS_AND_DEVICE = "tokens", "device", "both"


@dataclass(frozen=True)
class TokensOrDevice:
    """What makes the ep ranks of one layer differ in time: their tokens, their devices or both.

    :mod:`distprof.merge.experts.tokens_or_device` has the model that is fitted to tokens and times by ep rank and step.
    """

    cause: str  # "tokens", "device" or "both"; empty where neither differs by a tenth
    fixed_share: float  # of typical_ns, what does not depend on tokens
    typical_ns: float  # time of most ep ranks with the mean of the tokens
    slowness: tuple[
        float, ...
    ]  # by ep coordinate, time / time of most others with as many tokens; 1 where not above it
    saved_by_equal_tokens_ns: float  # of an iteration, with equal tokens on the same devices


@dataclass(frozen=True)
class ExpertTraffic:
    """The tokens that ranks send to experts of other ranks in an iteration, over all MoE layers whose routing is known.

    A dispatch sends them there and a combine brings them back; in training, backward does both once more.
    """

    ranks: tuple[int, ...]  # ascending; those of the sources and of the experts
    tokens: tuple[tuple[float, ...], ...]  # by source, then by the rank of the expert; empty for more than 256 ranks
    token_bytes: int | None  # of one token: the width of the router's input, in the format of the experts' weights
    bytes: float | None  # of all of them that leave their rank, there and back
    elsewhere_share: float  # of the tokens, those for experts of other ranks
    other_host_share: float  # of the tokens, those for experts of other hosts


@dataclass(frozen=True)
class LayerTimes:
    """Where the time of one MoE layer goes in an iteration, forward and backward together, as means over ranks in ns.

    These are self times, with waits for other ranks.  None: no module of that part was called in a timed step, or it
    is a part of another one.
    """

    gate_ns: float | None  # the router
    experts_ns: float | None  # the routed experts
    shared_ns: float | None  # experts that see all tokens
    rest_ns: float | None  # the layer's own code: dispatch, combine and waits in them
    dispatch_ns: float | None = (
        None  # of that, before the experts, in turns of 1 ms and more; None where not told apart
    )
    combine_ns: float | None = None  # likewise, after the experts
    not_apart: str = ""  # why dispatch and combine are not told apart


@dataclass(frozen=True)
class EmptySlots:
    """Rows that the experts of one layer ran on without a token in the counted step, over all ranks."""

    rows: float  # that they ran on, also with tokens
    share: float  # of the rows, those without a token; at least so many
    cost_ns: float | None  # of the experts' time in an iteration; None where that time is not known
    equal_rows: bool  # all ep ranks ran on as many rows: unequal tokens cost no time


@dataclass(frozen=True)
class CountedRouter:
    """What the counted step shows of the routers of one MoE layer, over all ranks."""

    padding_share: float | None  # of the choices that were not dropped, those of padding; None where no mask was seen
    padding_shares: tuple[
        float | None, ...
    ]  # the same by global expert, None for one that was not chosen; empty where no mask was seen
    entropy: float | None  # of a token's shares of the experts / ln(experts), the mean over tokens; 1 = no preference
    z_loss: float | None  # mean over tokens of the square of logsumexp of the logits, without a coefficient


@dataclass(frozen=True)
class OverLayers:
    """One measure over the MoE layers."""

    p50: float  # the median layer
    p95: float  # 1 of 20 layers is worse, interpolated
    worst: float  # the largest; of the entropy, the smallest
    worst_layer: str  # its label


@dataclass(frozen=True)
class ExpertSummary:
    """All MoE layers together."""

    layers: int  # whose loads are known
    max_over_mean: OverLayers | None  # of experts
    ep_max_over_mean: OverLayers | None  # of ep ranks; None where experts are not distributed
    cost_ns: float | None  # the sum of load_cost_ns: what equal loads would save of an iteration; None where not known
    cost_share: float | None  # of the median iteration
    worst_first: tuple[int, ...]  # places in ``experts``, by ep_cost_ns, then by ep max/mean, then by max/mean
    better_placed: tuple[int, ...] = ()  # places in ``experts`` where ``placement`` is clearly better, the best first
    unequal_micro_batches: tuple[int, ...] = ()  # places in ``experts`` where sums over steps hide them, worst first
    unequal_tokens: tuple[str, ...] = ()  # labels of layers where ep ranks differ by their tokens, the costliest first
    slow_devices: tuple[str, ...] = ()  # the same where an ep rank is slower than others with as many tokens
    ep_starts: tuple[int, ...] = ()  # as in each of the layers, where they are alike
    padding_share: float | None = None  # in the counted step, the mean over the layers in which a mask was seen
    empty_share: float | None = None  # of the rows that experts ran on, those without a token, over all known layers
    empty_cost_ns: float | None = None  # what these cost in an iteration; None where it is known of no layer
    has_empty_slots: bool = False  # whether they are worth a line: more than rounding up to a few rows leaves
    cv: OverLayers | None = None  # of experts
    entropy: OverLayers | None = None  # of experts; the smallest is the worst
    gini: OverLayers | None = None  # of experts
    drop_rate: OverLayers | None = None  # None where it is known of no layer


@dataclass(frozen=True)
class ExpertLayerStats:
    """One MoE layer over all ranks and timed steps."""

    name: str  # of the module in the model
    num_experts: int  # experts of the layer, on all ranks
    top_k: int | None  # experts that process one token
    steps: int  # timed iterations whose tokens are summed
    tokens: tuple[
        int | None, ...
    ]  # processed, by global expert; None: no recorded host, or its tokens were not counted
    expert_ranks: tuple[tuple[int, ...], ...]  # by global expert: the ranks that host it
    ep_tokens: tuple[int | None, ...]  # by coordinate on the axis that distributes experts
    ep_max_over_mean: float | None  # 1 when ranks have equal loads; None where experts are not distributed
    max_over_mean: float | None  # largest load / mean load; null where not all loads are known
    hottest: int | None  # the expert with the largest load; null where none is known
    dead: tuple[int, ...]  # experts with 0 tokens
    routed: tuple[int, ...]  # by global expert, how often routers chose it; empty where routing was not seen
    dropped: int | None  # of ``routed``, over all experts
    drop_rate: float | None  # dropped / (routed + lost)
    aux_loss: float | None  # mean over the router's calls, and over ranks
    ep_own_ns: tuple[
        float | None, ...
    ] = ()  # by ep coordinate: own time in the layer, forward and backward; empty where waits are not known
    ep_cost_ns: float | None = None  # largest - mean of the own times of a step, the median over steps
    load_cost_ns: float | None = (
        None  # what equal loads of the ep ranks, in each micro-batch where these are known, would save of an iteration
    )
    tokens_or_device: TokensOrDevice | None = None  # why ep ranks take unequal times; None where that is not known
    lost: int = 0  # dropped choices that ``routed`` lacks, because their expert is not known
    guessed: bool = False  # found by its weights or its calls: no name says that these are experts
    breach: str = ""  # a step in which chosen - dropped is not what was processed, as a sentence
    load: LoadMetrics | None = None  # of the experts, over all ranks and steps; None where no token is known
    ep_load: LoadMetrics | None = None  # of the ep ranks; None where experts are not distributed
    over_steps: LoadOverSteps | None = None  # None where loads are not known step by step
    ep_starts: tuple[int, ...] = ()  # the first expert of each other ep rank; empty where no rank has its own in a row
    times: LayerTimes | None = None  # None where no step was timed
    empty: EmptySlots | None = None  # None where rows or choices of the counted step are not known
    counted: CountedRouter | None = None  # None where no step was counted, or nothing of it is known
    micro_batches: MicroBatches | None = None  # None where each step has one, or the loads of single ones are not known
    capacity: int | None = None  # choices that one expert can take in these steps; None without a limit, or not known
    placement: Placement | None = None  # None with fewer than 4 steps, and where experts are not distributed
