"""The last words of the report: who is slow, and which expert is overloaded."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.culprit import culprit, largest_excess
from distprof.merge.phases import phase_title
from distprof.merge.report import Report
from distprof.merge.text.lines import one_line, wrapped
from distprof.merge.text.quantities import duration

#: An expert is called overloaded from this max/mean up.
OVERLOAD = 1.25


def verdict(report: Report) -> Iterator[str]:
    """One sentence; none where too few ranks can be compared."""
    words = [*_slowest(report), *_overloaded(report)]
    if words:
        yield from wrapped("; ".join(words) + ".")


def _slowest(report: Report) -> Iterator[str]:
    wall, row = report.summary.wall_iteration_ns, largest_excess(report)
    if row is None or wall is None:
        return
    share = f"{100 * row.excess_ns / wall.median:.0f}%"
    place = phase_title(row.phase) if row.subject == row.phase else f"{row.phase} of {one_line(row.subject)}"
    figures = f"{duration(row.excess_ns)} above its cohort's median, {share} of an iteration"
    if culprit(report):
        yield f"slowest: rank {row.slowest_rank}, {place}: {figures}"
    else:
        yield f"no rank stands out: the largest excess is rank {row.slowest_rank}'s {place}, {figures}"


def _overloaded(report: Report) -> Iterator[str]:
    known = [layer for layer in report.experts if layer.max_over_mean is not None]
    layer = max(known, key=lambda layer: layer.max_over_mean or 0, default=None)
    if layer and (layer.max_over_mean or 0) >= OVERLOAD:
        yield f"largest overload: expert {layer.hottest} of {one_line(layer.name)}, {layer.max_over_mean:.2f} x mean"
