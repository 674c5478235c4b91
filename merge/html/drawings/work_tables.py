"""The tables of the page on the parts of the model: experts, pipeline stages, flops and ops."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.html.drawings.model import COUNT, NUMBER, RATIO, SHARE, TIME, Column, Table, Value
from distprof.merge.report import ExpertLayerStats, Report
from distprof.merge.text.format.lines import one_line
from distprof.rank_names import number_spans


def experts_table(report: Report) -> Table:
    routed = any(layer.routed for layer in report.experts)
    columns = (
        Column("layer"),
        Column("experts", COUNT),
        Column("top-k", COUNT, "top-k"),
        Column("steps", COUNT),
        Column("max/mean", RATIO, "max/mean", bar=True),
        Column("ep max/mean", RATIO, "ep"),
        Column("hottest expert", COUNT),
        Column("dead experts", term="dead expert"),
        *((Column("dropped", SHARE, "capacity"), Column("auxiliary loss", NUMBER)) if routed else ()),
    )

    def cells(layer: ExpertLayerStats) -> Iterator[Value]:
        yield from (one_line(layer.name), layer.num_experts, layer.top_k, layer.steps, layer.max_over_mean)
        yield from (layer.ep_max_over_mean, layer.hottest)
        yield (number_spans(layer.dead) or "none") if layer.max_over_mean is not None else None
        yield from (layer.drop_rate, layer.aux_loss) if routed else ()

    hot = report.verdict.expert.layer
    marked = [place for place, layer in enumerate(report.experts) if hot and layer.name == hot]
    return Table("MoE layers", columns, [list(cells(layer)) for layer in report.experts], marked)


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
    kinds = ("forward", "backward", "recompute", "optimizer")
    columns = (Column("where"), *(Column(f"{kind} flops", NUMBER, "FLOPs, flops") for kind in kinds))
    cells: list[list[Value]] = [[row.where, *(getattr(row, f"{kind}_flops") for kind in kinds)] for row in report.work]
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
