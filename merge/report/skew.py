"""Where the ranks do not agree."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SkewRow:
    """How far the ranks disagree on one phase, or on one module's self time in one phase.

    ``excess_ns`` is the largest (rank - the median of the others of its cohort), the figure by which rows are ranked,
    and ``slowest_rank`` is its rank.
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
    excess_ns: tuple[tuple[float | None, ...], ...]  # the same, minus the median of the others of the rank's cohort


@dataclass(frozen=True)
class Skew:
    phases: tuple[SkewRow, ...]
    modules: tuple[SkewRow, ...]  # largest excess first
    map: SkewMap
    too_few: str = ""  # why the ranks cannot be compared, or empty
