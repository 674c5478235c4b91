"""What the report concludes of ranks and experts, with the evidence; every renderer shows these conclusions."""

from __future__ import annotations

from distprof.merge.report.long_steps import Burst
from distprof.plain import dataclass

#: Findings on ranks: the named ones are slow; one of the named ones is, and the others may wait for it; none is; they
#: cannot be compared.
SLOW, ONE_OF, NOBODY_STANDS_OUT, NOT_ENOUGH = "slow", "one of these is slow", "nobody stands out", "not enough to tell"
#: Findings on experts: one has too many tokens; none has; no load was seen.
OVERLOADED, BALANCED, NOT_SEEN = "overloaded", "balanced", "not seen"
#: Causes, as far as the records tell.
MORE_WORK, EXPERT_OVERLOAD, SLOW_HOST, SLOW_DEVICE = "more work", "expert overload", "slow host", "slow device"
BUSY_PROCESSORS = "busy processors"
DATA_LOADING, OPTIMIZER, PAUSES = "data loading", "optimizer", "pause"
SLOW_LINK, LONG_STAGE = "slow link", "long stage"
#: The place of a rank that is slow in so many modules and phases that none of them has most of it.
THROUGHOUT = "throughout"
_SUMS = ("forward", "backward")
#: The phase of a rank that is slow in one module in both directions, and in neither has most of it.
BOTH_WAYS = "forward and backward"


@dataclass(frozen=True)
class Straggler:
    """A rank that is slow, where, and the evidence; times of one iteration."""

    rank: int  # its number
    subject: str  # module label, phase (all modules of it, for forward and backward) or THROUGHOUT
    phase: str  # in which it loses the time; BOTH_WAYS for a module in both, THROUGHOUT for all of them
    excess_ns: float  # the median over steps of (its time - the median of the cohort's others that are not slow)
    share: float  # of the excess in the median iteration
    steps: int  # in so many of the steps its excess was at least half of that
    of_steps: int  # timed steps that were compared
    cohort: int  # the ranks that are compared, itself included
    cohort_ns: float  # the median of the others, over the steps
    processor_wait_ns: float = 0.0  # what it waits longer for a processor there, where that is much

    @property
    def waits_apart(self) -> bool:
        """Whether these waits are no part of the excess: of a module it is not known how much a rank waits there."""
        return self.processor_wait_ns > 0 and self.subject in (*_SUMS, THROUGHOUT)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """The modules or phases of its place as (subject, phase), one for each direction."""
        phases = BOTH_WAYS.split(" and ") if self.phase == BOTH_WAYS else [self.phase]
        return tuple((self.subject, phase) for phase in phases)


@dataclass(frozen=True)
class SlowGroup:
    """Ranks that are slow as a whole: those of a host, or of one group of an axis; times of one iteration."""

    kind: str  # "host", or the axis of the group: "tp", "ep", ..., "mp" for all ranks of one replica of the model
    name: str  # of the host; of a group the coordinates that its ranks share, as "dp 1, pp 0"; empty for ep
    ranks: tuple[int, ...]  # all of its ranks
    slow: tuple[int, ...]  # those of them that are slow
    subject: str  # where, as for a straggler
    phase: str  # as for a straggler
    excess_ns: float  # the median over steps of (the median of its ranks - the median of the other groups)
    share: float  # of the excess in the median iteration
    steps: int  # in so many of the steps its excess was at least half of that
    of_steps: int  # timed steps that were compared
    groups: int  # that were compared, itself included


@dataclass(frozen=True)
class Cause:
    """Why ranks are slow, or what is slow instead of a rank; ``name`` is empty where that is not known."""

    name: str = ""  # one of the causes above
    evidence: str = ""  # in words
    ranks: tuple[int, ...] = ()  # of the host, link or stage; that paused, or wait for a processor


@dataclass(frozen=True)
class WindowFinding:
    """What one window of the run, in which ranks can be compared, says of them."""

    window: int  # its number
    finding: str  # as in RankVerdict
    ranks: tuple[int, ...]  # the named ones, ascending


@dataclass(frozen=True)
class RankVerdict:
    """Who is slow.  ``named`` is empty unless the finding is ``SLOW`` or ``ONE_OF``.

    Where hosts or groups are slow as wholes, ``groups`` has them, and ``named`` each of their slow ranks.

    Where nobody is named, a rank that loses ``floor_ns`` or more in one module or phase would have been; ``cause`` then
    is a slow link, a long stage, a pause, or that ranks which stand out only wait for a processor, if there is one.
    """

    finding: str  # "slow", "one of these is slow", "nobody stands out" or "not enough to tell"
    named: tuple[Straggler, ...]  # largest excess first
    axis: str  # where one of several is slow: that of their group, empty where its purpose is not known
    slow_share: float  # from which share of the iteration on a rank is named
    iteration_ns: float | None  # the median of the job's iterations
    reason: str  # why there is not enough to tell, else empty
    why_self_times: str  # why waits are not known, so that self times were compared; empty where own times were
    floor_ns: float | None = None  # None where ranks were not compared
    floor_throughout_ns: float | None = None  # the same, for a rank that is slow in all modules and phases
    cause: str = ""  # one of the causes above, empty where none is known
    evidence: str = ""  # of the cause, in words
    group: tuple[int, ...] = ()  # the ranks of the host, link or stage; those that paused, or wait for a processor
    cost_ns: float | None = None  # what an iteration takes longer for the named ranks together; None: not known
    iteration_without_ns: float | None = None  # what an iteration would take without that
    others_are_late: bool = False  # an iteration would hardly be shorter without the named ranks
    groups: tuple[SlowGroup, ...] = ()  # largest excess first
    windows: tuple[
        WindowFinding, ...
    ] = ()  # of a run with several windows those that can be judged, at most the last 16
    windows_again: tuple[int, ...] = ()  # those of them that name all ranks that are named here; this one among them


@dataclass(frozen=True)
class ExpertVerdict:
    """The expert with the largest load of all layers, relative to the mean of its layer."""

    finding: str  # "overloaded", "balanced" or "not seen"
    layer: str  # label, empty where no load was seen
    expert: int | None  # its number in the layer
    max_over_mean: float | None  # its load / the mean load of its layer
    overload: float  # from which max / mean on an expert is overloaded


@dataclass(frozen=True)
class Verdict:
    """What the report concludes."""

    ranks: RankVerdict  # who is slow
    expert: ExpertVerdict  # which expert is overloaded
    bursts: tuple[Burst, ...] = ()  # what makes some iterations long, the most frequent first
