"""The comparison of two runs as plain data; text and JSON show it.

Changes are relative: 0.1 is 10 % more in the second run.  ``low`` and ``high`` bound a change; None where the noise is
not known.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Findings: the second run has more or less, beyond the noise; it may have the same; the noise is not known.
MORE, LESS, INSIDE, UNKNOWN = "more", "less", "inside the noise", "noise not known"


@dataclass(frozen=True)
class SetupDifference:
    """What the runs were started with, where it differs."""

    what: str
    first: str
    second: str
    effect: str = ""  # what it means for the comparison, may be empty


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
    why: str = ""


@dataclass(frozen=True)
class PlaceChange:
    """The self time of one module in one phase (5th percentile of steps), or a phase outside modules (median).

    ``change`` is relative to what modules have in common, so that a machine that is slower as a whole names none.
    Where a run kept no steps of a module, its time is that which it has at most: 1 % of an iteration.
    """

    subject: str  # module label, or phase
    phase: str
    first_ns: float
    second_ns: float
    change: float
    low: float
    high: float
    cost_ns: float  # what the change costs an iteration; negative: gains
    share: float  # cost_ns / the median iteration of the first run
    finding: str


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
    first: str  # the run's name
    second: str
    why_not: str  # why times cannot be compared at all, else empty
    setup: tuple[SetupDifference, ...]
    figures: tuple[Figure, ...]
    common: float | None  # the change that modules have in common: a slower machine, another number format
    places: tuple[PlaceChange, ...]  # the largest cost or gain first
    why_no_places: str  # why places are not compared, else empty
    collectives: tuple[CollectiveChange, ...]
    work: tuple[WorkChange, ...]
    verdict: VerdictChange
    notes: tuple[str, ...] = ()

    def worse_by(self, share: float) -> tuple[str, ...]:
        """Returns what is worse in the second run by more than ``share``, beyond the noise: figures and places."""
        figures = [one.name for one in self.figures if one.is_worse and abs(one.change or 0.0) > share]
        places = [one.subject for one in self.places if one.finding == MORE and one.share > share]
        return (*figures, *places)
