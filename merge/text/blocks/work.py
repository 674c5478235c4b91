"""The flops of one iteration by place, with those outside of modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import quantity
from distprof.merge.report import Report, WorkRow
from distprof.merge.text.format.lines import heading, table, wrapped

#: The note for an iteration of a job.
JOB_NOTE = (
    "(outside modules): what the script computes outside of models, backward and optimizers, such as losses and"
    " transforms of a batch.  (optimizer): the optimizers' steps, and code between a backward and a step that runs"
    " without gradient, such as clipping; after the last backward also code with gradient.  In no row: work of a"
    " DataLoader, evaluation with the code without gradient around it, and autograd's own sums of gradients."
)


def work_block(report: Report, note: str = JOB_NOTE) -> Iterator[str]:
    """Yields the lines of the block; none where nothing was counted.  ``note`` explains the rows."""
    if not report.work:
        return
    yield heading(f"Flops of one iteration per {report.run.unit}")
    yield from wrapped(note)
    titles = ("where", "forward", "backward", "recomputed", "optimizer", "all")
    yield from table(titles, [_cells(row) for row in (*report.work, _all(report.work))], left=["where"])


def _cells(row: WorkRow) -> list[str]:
    parts = (row.forward_flops, row.backward_flops, row.recompute_flops, row.optimizer_flops)
    return [row.where, *("" if part is None else quantity(part) for part in parts), quantity(row.flops)]


def _all(rows: Sequence[WorkRow]) -> WorkRow:
    def total(field: str) -> float | None:
        known = [value for row in rows if (value := getattr(row, field)) is not None]
        return sum(known) if known else None

    return WorkRow("all", *map(total, ("forward_flops", "backward_flops", "recompute_flops", "optimizer_flops")))
