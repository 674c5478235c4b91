"""How far the ranks disagree."""

from __future__ import annotations

from distprof.plain import dataclass


@dataclass(frozen=True)
class SkewRow:
    """How far the ranks disagree on one phase, or on one module's self time in one phase.

    Times are own times, without waits in collectives, where ``wait_ns`` is known.
    ``excess_ns`` is the largest (rank - the median of the others of its cohort), the figure by which rows are ranked,
    and ``slowest_rank`` is its rank.
    """

    subject: str  # phase name, or module label
    phase: str  # "iteration", or one of records.PHASES
    min_ns: float  # the least over ranks
    median_ns: float  # over ranks
    max_ns: float  # the largest over ranks
    ratio: float | None  # max / median
    excess_ns: float  # the largest excess of a rank
    slowest_rank: int  # the rank of this excess
    ranks: int  # how many have a time
    wait_ns: float | None = None  # in collectives, median over ranks; None where waits are not known


@dataclass(frozen=True)
class SkewMap:
    """Self time of the modules on which ranks disagree most, without waits in collectives where these are known.

    There is one row for each rank, and one column for each (module, phase).
    """

    ranks: tuple[int, ...]  # the rows: all ranks with a time, ascending
    subjects: tuple[str, ...]  # module labels
    phases: tuple[str, ...]  # "forward" or "backward", one a column
    self_ns: tuple[tuple[float | None, ...], ...]  # [rank][column]; None where the rank has no such module
    excess_ns: tuple[tuple[float | None, ...], ...]  # the same, minus the median of the others of the rank's cohort


@dataclass(frozen=True)
class Skew:
    """Where ranks disagree: by phase, by module, and rank by rank."""

    phases: tuple[SkewRow, ...]  # iteration first, then its phases
    modules: tuple[SkewRow, ...]  # largest excess first
    map: SkewMap  # rank by rank
    too_few: str = ""  # why the ranks cannot be compared, or empty

    @property
    def has_own_times(self) -> bool:
        """Whether waits in collectives are known, so that all times are without them."""
        return any(row.wait_ns is not None for row in (*self.phases, *self.modules))
