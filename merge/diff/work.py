"""What two runs do: collectives, parameters, flops; and what their verdicts say."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.diff.data import CollectiveChange, VerdictChange, WorkChange
from distprof.merge.report import OVERLOADED, CollectiveRow, RankVerdict, Report
from distprof.merge.wording import place_name
from distprof.rank_names import rank_names


def collective_changes(first: Report, second: Report) -> tuple[CollectiveChange, ...]:
    """Returns the collectives of both runs, the largest change of wait and transfer first."""
    own, others = ({(row.kind, row.op): row for row in report.collectives.rows} for report in (first, second))
    changes = [_collective(*key, own.get(key), others.get(key)) for key in {**own, **others}]
    return tuple(sorted(changes, key=lambda one: -abs(one.cost_ns)))


def _collective(kind: str, op: str, first: CollectiveRow | None, second: CollectiveRow | None) -> CollectiveChange:
    return CollectiveChange(
        kind=kind,
        op=op,
        first_calls=first.calls if first else None,
        second_calls=second.calls if second else None,
        first_bytes=first.bytes if first else None,
        second_bytes=second.bytes if second else None,
        first_ns=_in_collective(first),
        second_ns=_in_collective(second),
    )


def _in_collective(row: CollectiveRow | None) -> float | None:
    known = [part for part in (row.wait_ns, row.transfer_ns) if part is not None] if row else []
    return sum(known) if known else None


def work_changes(first: Report, second: Report) -> tuple[WorkChange, ...]:
    """Returns the modules whose own parameters or forward flops differ, in the order of the models.

    A module in which others changed is not listed for that: its own work is without theirs.
    """
    return tuple(_work(first, second))


def _work(first: Report, second: Report) -> Iterator[WorkChange]:
    own, others = ({row.label: row for row in report.modules} for report in (first, second))
    work, other_work = _own_flops(first), _own_flops(second)
    for label in {**own, **others}:
        a, b = own.get(label), others.get(label)
        params = (a.own_params if a else None, b.own_params if b else None)
        if (params[0] or 0) != (params[1] or 0):
            yield WorkChange(label, "params", *params)
        flops = (work.get(label), other_work.get(label))
        if (flops[0] or 0) != (flops[1] or 0) and not (a and b and None in flops):
            yield WorkChange(label, "flops", *flops)


def _own_flops(report: Report) -> dict[str, float]:
    """Returns the forward flops of each module without those of the modules inside, where they were counted."""
    own = [row.flops for row in report.modules]
    for row in report.modules:
        if row.parent >= 0 and row.flops is not None and own[row.parent] is not None:
            own[row.parent] = (own[row.parent] or 0.0) - row.flops
    return {row.label: flops for row, flops in zip(report.modules, own, strict=True) if flops is not None}


def verdict_change(first: Report, second: Report) -> VerdictChange:
    """Returns what the verdicts say."""
    before = {one.rank for one in first.verdict.ranks.named}
    hot = _hot(first)
    return VerdictChange(
        first=_words(first.verdict.ranks),
        second=_words(second.verdict.ranks),
        new_slow_ranks=tuple(one.rank for one in second.verdict.ranks.named if one.rank not in before),
        new_hot_experts=tuple(name for name in _hot(second) if name not in hot),
    )


def _words(verdict: RankVerdict) -> str:
    if not verdict.named:
        return verdict.finding
    worst = verdict.named[0]
    where = place_name(worst.subject, worst.phase)
    return f"{rank_names(one.rank for one in verdict.named)}: {where}, {worst.share:.0%} of an iteration"


def _hot(report: Report) -> list[str]:
    """Returns the overloaded experts, in words."""
    if report.verdict.expert.finding != OVERLOADED:
        return []
    overload = report.verdict.expert.overload
    return [
        f"expert {layer.hottest} of {layer.name}"
        for layer in report.experts
        if layer.max_over_mean is not None and layer.max_over_mean >= overload
    ]
