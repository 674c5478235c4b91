"""The flops of one iteration by where they are, down to what no module did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import quantity
from distprof.merge.report import Report, WorkRow
from distprof.merge.text.format.lines import heading, table, wrapped

#: Of a job's iteration.
WHOLE = (
    "(outside modules) is what the script computes itself between its models, backward and optimizers: losses,"
    " products, what it does to a batch. (optimizer) has the optimizers' steps, and what runs without gradient from a"
    " backward up to them, like clipping, in grad mode too behind the last backward. What a DataLoader does, and"
    " evaluation with all that runs without gradient around it, is in no row; nor are autograd's own sums of gradients."
)


def work_block(report: Report, note: str = WHOLE) -> Iterator[str]:
    """Lines of the block; none where nothing was counted.  ``note``: what the rows hold."""
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
