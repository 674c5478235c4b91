"""The ops of the counted step, over the ranks that recorded them."""

from __future__ import annotations

from collections import defaultdict

from distprof.merge.analysis import Analysis
from distprof.merge.report import OpStats
from distprof.records import OpRow


def op_rows(analysis: Analysis) -> tuple[OpStats, ...]:
    """Returns one row for each op and kind of work, means over the ranks; most flops come first, then most time."""
    recorded = [window.ops for window in analysis.windows.values() if window.ops]
    timed = bool(recorded) and all(ops.timed for ops in recorded)
    found: dict[tuple[str, str], list[OpRow]] = defaultdict(list)
    for ops in recorded:
        for row in ops.ops:
            found[row.name, row.kind].append(row)
    stats = [_mean(rows, len(recorded), timed=timed) for rows in found.values()]
    return tuple(sorted(stats, key=lambda op: (-op.flops, -(op.time_ns or 0), op.name, op.kind)))


def _mean(rows: list[OpRow], ranks: int, *, timed: bool) -> OpStats:
    return OpStats(
        name=rows[0].name,
        kind=rows[0].kind,
        calls=sum(row.calls for row in rows) / ranks,
        macs=sum(row.macs for row in rows) / ranks,
        flops=sum(row.flops for row in rows) / ranks,
        time_ns=sum(row.time_ns for row in rows) / ranks if timed else None,
    )
