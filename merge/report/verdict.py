"""What the report concludes of ranks and experts, with the evidence; every renderer shows these conclusions."""

from __future__ import annotations

from dataclasses import dataclass

from distprof.merge.report.skew import Straggler

#: Findings on ranks: one is slow; several of one group are; none is far above its cohort; they cannot be compared.
SLOW, SLOW_TOGETHER, NOBODY_STANDS_OUT, NOT_ENOUGH = "slow", "slow together", "nobody stands out", "not enough to tell"
#: Findings on experts: one has too many tokens; none has; no load was seen.
OVERLOADED, BALANCED, NOT_SEEN = "overloaded", "balanced", "not seen"


@dataclass(frozen=True)
class RankVerdict:
    """Who is slow.  ``named`` is empty unless the finding is ``slow`` or ``slow together``."""

    finding: str
    named: tuple[Straggler, ...]  # largest excess first
    axis: str  # of the group that several share, empty for one
    likely: int | None  # the rank that is slow by itself, None where that cannot be told
    may_wait_for: tuple[int, ...]  # ranks in process groups of unknown purpose with the one that is named
    largest: Straggler | None  # the largest excess, whether its rank is named or not
    share: float | None  # of the largest excess in the median iteration
    slow_share: float  # from which share on a rank is named
    iteration_ns: float | None  # median over ranks
    reason: str  # why there is not enough to tell, else empty


@dataclass(frozen=True)
class ExpertVerdict:
    """The expert with the largest load of all layers, relative to the mean of its layer."""

    finding: str
    layer: str  # label, empty where no load was seen
    expert: int | None
    max_over_mean: float | None
    overload: float  # from which max / mean on an expert is overloaded


@dataclass(frozen=True)
class Verdict:
    ranks: RankVerdict
    expert: ExpertVerdict
