"""Who is slow by its own doing, as text and plots name it."""

from __future__ import annotations

from distprof.merge.report import Report, SkewRow

#: A rank is called slow when its excess is at least this share of the iteration; below it, ranks differ by chance.
SLOW_SHARE = 0.05
#: Inclusive times, in which the ranks that wait look slow as well: the modules' self times stand for them.
_BLAMES_VICTIMS = ("iteration", "forward", "backward")


def culprit(report: Report) -> SkewRow | None:
    """The row of the largest excess, None where nobody can be named or nobody stands out."""
    wall = report.summary.wall_iteration_ns
    row = largest_excess(report)
    return row if row and wall and row.excess_ns >= SLOW_SHARE * wall.median else None


def largest_excess(report: Report) -> SkewRow | None:
    """Of any module, or of a phase that no module stands for; None where too few ranks can be compared."""
    if report.skew.too_few:
        return None
    rows = [*report.skew.modules, *(row for row in report.skew.phases if row.phase not in _BLAMES_VICTIMS)]
    return max(rows, key=lambda row: row.excess_ns, default=None)
