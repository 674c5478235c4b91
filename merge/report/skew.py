"""Where the ranks do not agree."""

from __future__ import annotations

from dataclasses import dataclass


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
class Straggler:
    """A rank and where its largest excess is."""

    rank: int
    subject: str  # module label, or phase name
    phase: str
    excess_ns: float


@dataclass(frozen=True)
class Stragglers:
    """The rank of the largest excess; or several ranks of one group, nearly as far above their medians: in such a group
    one computes while the others wait, and the cause is among them.
    """

    ranks: tuple[Straggler, ...]  # largest excess first
    axis: str  # of the group that several share, empty for one
    likely: int | None  # the one of them that the others seem to wait for, None where that cannot be told
    may_wait_for: tuple[int, ...] = ()  # ranks in process groups of unknown purpose with the one that is slow


@dataclass(frozen=True)
class Skew:
    phases: tuple[SkewRow, ...]
    modules: tuple[SkewRow, ...]  # largest excess first
    map: SkewMap
    too_few: str = ""  # why nobody is named (a cohort of fewer than 3 ranks, too few ranks recorded), or empty
    suspects: Stragglers | None = None  # None where nobody is named, or nobody has an excess
