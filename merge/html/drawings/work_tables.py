"""The tables of the page on the parts of the model: pipeline stages, flops and ops."""

from __future__ import annotations

from distprof.merge.html.drawings.model import COUNT, NUMBER, SHARE, TIME, Column, Table, Value
from distprof.merge.report import Report
from distprof.merge.text.format.lines import one_line
from distprof.rank_names import number_spans


def pipeline_table(report: Report) -> Table:
    columns = (
        Column("stage", COUNT),
        Column("virtual stages", COUNT),
        Column("micro-batches", NUMBER, "micro-batch"),
        Column("forward", TIME, bar=True),
        Column("backward", TIME, bar=True),
        Column("waiting", TIME, bar=True),
        Column("bubble", SHARE, "bubble", bar=True),
        Column("bubble of the schedule", SHARE, "bubble"),
        Column("ranks"),
    )
    cells: list[list[Value]] = [
        [
            row.stage,
            row.virtual_stages,
            row.micro_batches,
            row.forward_ns,
            row.backward_ns,
            row.waiting_ns,
            row.bubble,
            row.ideal_bubble,
            number_spans(row.ranks),
        ]
        for row in report.pipeline
    ]
    return Table("Pipeline stages", columns, cells, note="Medians over timed steps and ranks.")


def work_table(report: Report) -> Table:
    """Returns the flops by place; no number stands where such work does not occur."""
    kinds = ("forward", "backward", "recomputed", "optimizer")
    columns = (Column("where"), *(Column(f"{kind} flops", NUMBER, "FLOPs, flops", missing="-") for kind in kinds))
    cells: list[list[Value]] = [
        [row.where, row.forward_flops, row.backward_flops, row.recompute_flops, row.optimizer_flops]
        for row in report.work
    ]
    return Table("Flops of one iteration", columns, cells, note="Means over the ranks that counted.")


def ops_table(report: Report) -> Table:
    columns = (
        Column("op"),
        Column("kind"),
        Column("calls", NUMBER),
        Column("MACs", NUMBER, "MAC"),
        Column("flops", NUMBER, "FLOPs, flops"),
        Column("time", TIME, bar=True),
    )
    cells: list[list[Value]] = [
        [one_line(op.name), op.kind, op.calls, op.macs, op.flops, op.time_ns] for op in report.ops
    ]
    return Table("Ops", columns, cells)
