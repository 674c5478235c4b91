"""The flops of one iteration by place: in modules, outside of modules, in the optimizer.  These are all flops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from distprof.merge.analysis import Analysis
from distprof.merge.report import WorkRow
from distprof.records import Counts

_OPTIMIZER = "optimizer_flops"


def work_rows(analysis: Analysis) -> tuple[WorkRow, ...]:
    """Returns the rows, means over the ranks that counted; no row for an optimizer that no rank saw."""
    alike = {id(counts): counts for counts in analysis.counts.values()}  # ranks that counted the same share an object
    ranks = Counter(map(id, analysis.counts.values()))
    counted = [(counts, ranks[key]) for key, counts in alike.items()]
    if not counted:
        return ()
    trains = analysis.trains

    def outside(key: str) -> float:
        return _mean(counted, lambda counts: counts.outside.get(key, 0))

    rows = [
        WorkRow(
            where="modules",
            forward_flops=_mean(counted, lambda counts: int(counts.forward_flops.sum())),
            backward_flops=_mean(counted, lambda counts: int(counts.backward_flops.sum())) if trains else None,
            recompute_flops=_mean(counted, lambda counts: int(counts.recompute_flops.sum())) if trains else None,
        ),
        WorkRow(
            where="(outside modules)",
            forward_flops=outside("forward_flops"),
            backward_flops=outside("backward_flops") if trains else None,
            recompute_flops=outside("recompute_flops") if trains else None,
        ),
    ]
    if any(_OPTIMIZER in counts.outside for counts, _ in counted):
        rows.append(WorkRow(where="(optimizer)", optimizer_flops=outside(_OPTIMIZER)))
    return tuple(rows)


def _mean(counted: Sequence[tuple[Counts, int]], pick: Callable[[Counts], int]) -> float:
    """Returns the mean over ranks; ``counted`` has what ranks counted, and how many counted it."""
    return sum(ranks * pick(counts) for counts, ranks in counted) / sum(ranks for _, ranks in counted)
