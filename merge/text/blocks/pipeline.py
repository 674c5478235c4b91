"""The Pipeline block: micro-batches and the bubble of every stage."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import TimeUnit, common_unit, percentage, plain
from distprof.merge.report import Report, StageRow
from distprof.merge.text.format.lines import heading, table, wrapped
from distprof.merge.wording import number_series

_MEANING = (
    "bubble = 1 - (forward in modules + backward) / (iteration - data wait - optimizer - evaluation): the share of"
    " the time in which a stage waits for its neighbours, or computes a loss outside of modules.  Forward and backward"
    " are without waits for other ranks where these are known.  ideal = (pp - 1) / (v m + pp - 1) for m micro-batches"
    " and v stages on each rank: the bubble of GPipe, 1F1B and interleaved 1F1B if all stages take the same time."
)


def pipeline_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none without a pipeline, or without a timed step."""
    if not report.pipeline:
        return
    unit = common_unit(value for row in report.pipeline for value in (row.forward_ns, row.backward_ns, row.waiting_ns))
    yield heading("Pipeline")
    yield from wrapped(f"Medians over timed steps, then over the stage's ranks, in {unit.name}.  {_MEANING}")
    titles = ("pp", "stages", "micro-batches", "forward", "backward", "waiting", "bubble", "ideal", "ranks")
    yield from table(titles, [_cells(row, unit) for row in report.pipeline], left=["ranks"])


def _cells(row: StageRow, unit: TimeUnit) -> list[str]:
    return [
        str(row.stage),
        str(row.virtual_stages),
        plain(row.micro_batches),
        *(unit.format(value) for value in (row.forward_ns, row.backward_ns, row.waiting_ns)),
        percentage(row.bubble, 1.0),
        percentage(row.ideal_bubble, 1.0),
        number_series(row.ranks),
    ]
