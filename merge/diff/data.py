"""The comparison of two runs as plain data; text and JSON show it.

Changes are relative: 0.1 is 10 % more in the second run.  ``low`` and ``high`` bound a change; None where the noise is
not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

#: Findings: the second run has more or less, beyond the noise; it may have the same; the noise is not known.
MORE, LESS, INSIDE, UNKNOWN = "more", "less", "inside the noise", "noise not known"
#: What a comparison comes to, if it is not INSIDE or UNKNOWN.
SLOWER, FASTER, NOT_COMPARABLE = "slower", "faster", "not comparable"


@dataclass(frozen=True)
class SetupDifference:
    """What the runs were started with, where it differs."""

    what: str
    first: str
    second: str
    effect: str = ""  # what it means for the comparison, may be empty


@dataclass(frozen=True)
class Conclusion:
    """What the comparison comes to: the second run is slower, faster, or may be as fast as the first.

    ``figure`` is the name of the figure that decides; empty where no times were compared.
    """

    finding: str  # SLOWER, FASTER, INSIDE, UNKNOWN or NOT_COMPARABLE
    figure: str = ""
    change: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Figure:
    """One figure of both runs.  ``why`` says why the noise is not known, or what is in its bounds."""

    name: str
    unit: str  # "ns", "bytes", "samples/s", "share", "count"
    first: float | None
    second: float | None
    change: float | None
    low: float | None
    high: float | None
    finding: str
    is_worse: bool  # in the second run, beyond the noise
    is_better: bool  # neither is of figures that are only different, as iterations of other amounts of work
    why: str = ""


@dataclass(frozen=True)
class PlaceChange:
    """The time of one module in one phase (lower quartile of steps), or a phase outside modules (median).

    ``change`` is relative to what modules have in common, so that a machine that is slower as a whole names none.
    Where a run kept no steps of a module, its time is that which it has at most: 1 % of an iteration.
    """

    subject: str  # module label, or phase
    phase: str
    first_ns: float
    second_ns: float
    change: float
    low: float | None
    high: float | None
    cost_ns: float  # what the change costs an iteration; negative: gains
    share: float  # cost_ns / the median iteration of the first run
    finding: str

    @property
    def noise(self) -> float | None:
        """By which share a place that does not change differs by chance; None where that is not known."""
        if self.low is None or self.high is None:
            return None
        return sqrt((1 + self.high) / (1 + self.low)) - 1


@dataclass(frozen=True)
class Places:
    """The places of both runs, the largest cost or gain first, and last those whose noise is not known."""

    changes: tuple[PlaceChange, ...] = ()
    common: float | None = None  # the change that modules have in common: a slower machine, another number format
    noise: float | None = None  # a middling module changes by so much by chance; None where that is not known
    why_not: str = ""  # why places, or their noise, are not known, else empty
    without_waits: bool = False  # times are without waits in collectives, which both runs know


@dataclass(frozen=True)
class CollectiveChange:
    """The collectives of one op in groups of one kind, in one iteration; None where a run has none."""

    kind: str
    op: str
    first_calls: float | None
    second_calls: float | None
    first_bytes: float | None
    second_bytes: float | None
    first_ns: float | None  # wait and transfer
    second_ns: float | None

    @property
    def cost_ns(self) -> float:
        """What an iteration takes longer for it, in ns."""
        return (self.second_ns or 0.0) - (self.first_ns or 0.0)


@dataclass(frozen=True)
class WorkChange:
    """A module whose parameters or forward flops differ; None where a run has no such module."""

    module: str
    what: str  # "params", "flops"
    first: float | None
    second: float | None


@dataclass(frozen=True)
class VerdictChange:
    """What the verdicts of the runs say in different ways."""

    first: str  # who is slow, in words
    second: str
    new_slow_ranks: tuple[int, ...]  # named in the second run only
    new_hot_experts: tuple[str, ...]  # overloaded in the second run only


@dataclass(frozen=True)
class Diff:
    first: str  # the run's name; of repeated runs, all names
    second: str
    conclusion: Conclusion
    why_not: str  # why times cannot be compared at all, else empty
    setup: tuple[SetupDifference, ...]
    figures: tuple[Figure, ...]
    places: Places
    collectives: tuple[CollectiveChange, ...]
    work: tuple[WorkChange, ...]
    verdict: VerdictChange
    #: Of both, the median of their ranks; repeated runs follow each other.
    iterations_ns: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    notes: tuple[str, ...] = ()

    def worse_by(self, share: float) -> tuple[str, ...]:
        """Returns what is worse in the second run by more than ``share``, beyond the noise: figures and places."""
        figures = [one.name for one in self.figures if one.is_worse and abs(one.change or 0.0) > share]
        places = [one.subject for one in self.places.changes if one.finding == MORE and one.share > share]
        return (*figures, *places)
