"""The last words of the report: who is slow, and which expert is overloaded."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import duration
from distprof.merge.report import Report, Spread, Straggler, Stragglers
from distprof.merge.skew.verdict import slow_ranks
from distprof.merge.text.format.lines import one_line, wrapped
from distprof.merge.wording import phase_title, rank_names

#: An expert is called overloaded from this max/mean up.
OVERLOAD = 1.25


def verdict(report: Report) -> Iterator[str]:
    """One sentence; none where too few ranks can be compared."""
    words = [*_slowest(report), *_overloaded(report)]
    if words:
        yield from wrapped("; ".join(words) + ".")


def _slowest(report: Report) -> Iterator[str]:
    wall, suspects = report.summary.wall_iteration_ns, report.skew.suspects
    if suspects is None or wall is None:
        return
    worst = suspects.ranks[0]
    figures = f"{duration(worst.excess_ns)} above its cohort's median, {_share(worst, wall)} of an iteration"
    if not slow_ranks(report):
        yield f"no rank stands out: the largest excess is rank {worst.rank}'s {_place(worst)}, {figures}"
    elif len(suspects.ranks) == 1:
        yield f"slowest: rank {worst.rank}, {_place(worst)}: {figures}{_or_waits(suspects)}"
    else:
        yield _together(suspects, wall)


def _together(suspects: Stragglers, wall: Spread) -> str:
    """Several ranks of one group: each with its place, and what speaks for one of them."""
    places: dict[str, list[int]] = {}
    for one in suspects.ranks:
        places.setdefault(_place(one), []).append(one.rank)
    first, last = suspects.ranks[0], suspects.ranks[-1]
    who = f"{rank_names(one.rank for one in suspects.ranks)} (one {suspects.axis} group)"
    excess = f"{duration(last.excess_ns)} to {duration(first.excess_ns)} above their cohort's median"
    where = ", ".join(f"{rank_names(ranks)} in {place}" for place, ranks in places.items())
    likely = (
        "" if suspects.likely is None else f", most likely rank {suspects.likely}, for which the others seem to wait"
    )
    return (
        f"slow together: {who}: {excess}, {_share(first, wall)} of an iteration: {where}; "
        f"while one computes the others of its group wait, so the cause is among them{likely}"
    )


def _or_waits(suspects: Stragglers) -> str:
    if not suspects.may_wait_for:
        return ""
    return (
        f"; or it waits there for {rank_names(suspects.may_wait_for)}, with which it shares process groups whose "
        "purpose is not known (see the note at the top)"
    )


def _share(one: Straggler, wall: Spread) -> str:
    return f"{100 * one.excess_ns / wall.median:.0f}%"


def _place(one: Straggler) -> str:
    return phase_title(one.phase) if one.subject == one.phase else f"{one.phase} of {one_line(one.subject)}"


def _overloaded(report: Report) -> Iterator[str]:
    known = [layer for layer in report.experts if layer.max_over_mean is not None]
    layer = max(known, key=lambda layer: layer.max_over_mean or 0, default=None)
    if layer and (layer.max_over_mean or 0) >= OVERLOAD:
        yield f"largest overload: expert {layer.hottest} of {one_line(layer.name)}, {layer.max_over_mean:.2f} x mean"
