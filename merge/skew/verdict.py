"""Who is slow by its own doing, as text and plots name it."""

from __future__ import annotations

from distprof.merge.report import Report, Straggler, Stragglers

#: A rank is called slow when its excess is at least this share of the iteration; below it, ranks differ by chance.
SLOW_SHARE = 0.05


def slow_ranks(report: Report) -> Stragglers | None:
    """The ranks among which the slow one is; None where nobody can be named or nobody stands out."""
    wall, suspects = report.summary.wall_iteration_ns, report.skew.suspects
    return suspects if suspects and wall and suspects.ranks[0].excess_ns >= SLOW_SHARE * wall.median else None


def culprit(report: Report) -> Straggler | None:
    """The slow rank, where one can be told from those that may only wait for it."""
    slow = slow_ranks(report)
    return next((one for one in slow.ranks if one.rank == slow.likely), None) if slow else None
