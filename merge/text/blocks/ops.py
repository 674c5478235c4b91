"""The Ops block: what each op cost, where a process profiled itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import (
    NOT_AVAILABLE,
    NS_PER_SECOND,
    TimeUnit,
    common_unit,
    flops_per_second,
    macs,
    percentage,
    plain,
    quantity,
)
from distprof.merge.report import OpStats, Report
from distprof.merge.text.format.lines import heading, one_line, table
from distprof.merge.text.format.shortening import shortened_apart

_NAME_WIDTH = 48
_BY_FLOPS, _BY_TIME = 16, 8


def ops_block(report: Report) -> Iterator[str]:
    """Lines of the block: ops of most flops, then of the others those of most time; none where no op was recorded."""
    if not report.ops:
        return
    unit = common_unit(op.time_ns for op in report.ops)
    flops = sum(op.flops for op in report.ops)
    known = [op.time_ns for op in report.ops if op.time_ns is not None]
    time_ns = sum(known) if known else None
    yield heading("Ops")
    yield f"Sums over all calls of each op in the counted step; times in {unit.name}."
    titles = ("op", "in", "calls", "MACs", "flops", "% flops", "time", "% time", "FLOPS")
    shown = [*report.ops[:_BY_FLOPS], *_longest(report.ops[_BY_FLOPS:])]
    names = shortened_apart([one_line(op.name) for op in shown], _NAME_WIDTH)
    yield from table(
        titles, [_cells(op, names[one_line(op.name)], flops, time_ns, unit) for op in shown], left=("op", "in")
    )
    rest = [op for op in report.ops if op not in shown]
    if rest:
        yield f"{len(rest)} more: {_rest(rest, flops, time_ns)}"


def _longest(ops: Sequence[OpStats]) -> list[OpStats]:
    return sorted(ops, key=lambda op: -(op.time_ns or 0))[:_BY_TIME]


def _cells(op: OpStats, name: str, flops: float, time_ns: float | None, unit: TimeUnit) -> list[str]:
    return [
        name,
        one_line(op.kind),
        plain(op.calls),
        macs(op.macs),
        quantity(op.flops),
        percentage(op.flops, flops),
        unit.format(op.time_ns),
        percentage(op.time_ns, time_ns),
        flops_per_second(op.flops / op.time_ns * NS_PER_SECOND) if op.time_ns else NOT_AVAILABLE,
    ]


def _rest(ops: Sequence[OpStats], flops: float, time_ns: float | None) -> str:
    share = percentage(sum(op.flops for op in ops), flops)
    spent = sum(op.time_ns or 0 for op in ops) if time_ns is not None else None
    return f"{share} of the flops, {percentage(spent, time_ns)} of the time"
