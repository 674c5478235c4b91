"""The tables of the page, from the sections of the report."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.html.model import (
    BYTES,
    COUNT,
    NUMBER,
    RANK,
    RATE,
    RATIO,
    SHARE,
    TIME,
    Column,
    Table,
    Value,
)
from distprof.merge.report import LONG_STEP, ExpertLayerStats, RankRow, Report, SelfTime, SkewRow
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import number_spans, phase_title, place_name
from distprof.records import PHASES


def tables(report: Report) -> dict[str, Table]:
    """Returns the tables that have rows, by the names of their places on the page."""
    found = {
        "ranks": rank_table(report),
        "hosts": _hosts(report),
        "bursts": _bursts(report),
        "long_steps": _long_steps(report),
        "skew_phases": _skew(report.skew.phases, "Phases", "phase"),
        "skew_modules": _skew(report.skew.modules, "Modules on which ranks disagree most", "module"),
        "collectives": _collectives(report),
        "waits": _waits(report),
        "experts": _experts(report),
        "pipeline": _pipeline(report),
        "memory": _memory(report),
        "phases": _phases(report),
        "classes": _self_times(report, report.time.classes, "Classes of modules"),
        "self_times": _self_times(report, report.time.modules, "Modules by self time"),
        "work": _work(report),
        "ops": _ops(report),
    }
    return {name: table for name, table in found.items() if table.rows}


def shown_phases(report: Report) -> list[str]:
    """Returns the phases in which any rank spent time, or may have."""
    return [phase for phase in PHASES if any(row.phases_ns.get(phase) != 0 for row in report.ranks)]


def shown_axes(report: Report) -> list[str]:
    """Returns the axes on which the job has several coordinates."""
    return [axis for axis, size in report.topology.sizes.items() if size > 1]


def rank_table(report: Report) -> Table:
    """Returns all ranks, which fold by host."""
    axes, phases = shown_axes(report), shown_phases(report)
    slow = {one.rank for one in report.verdict.ranks.named}
    has_hfu = any(row.hfu is not None and row.hfu != row.mfu for row in report.ranks)
    used = [name for name in ("mfu", "hfu") if report.utilization.mfu is not None and (name == "mfu" or has_hfu)]
    columns = [
        Column("rank", RANK, "rank"),
        Column("host"),
        *(Column(axis, COUNT, axis) for axis in axes),
        Column("iteration", TIME, "iteration", bar=True),
        *(Column(phase_title(phase), TIME, "phase") for phase in phases),
        *(Column(name.upper(), SHARE, name.upper()) for name in used),
        Column("peak memory", BYTES),
        Column("timed steps", COUNT, "timed step"),
        Column("remark"),
    ]

    def cells(row: RankRow) -> Iterator[Value]:
        yield from (row.rank, one_line(row.host))
        yield from (row.coordinates.get(axis) for axis in axes)
        yield row.iteration_ns
        yield from (row.phases_ns.get(phase) for phase in phases)
        yield from (getattr(row, name) for name in used)
        yield from (row.peak_memory_bytes, row.steps, _remark(report, row, slow))

    return Table(
        "Ranks",
        columns,
        [list(cells(row)) for row in report.ranks],
        [place for place, row in enumerate(report.ranks) if row.rank in slow],
        group_by=1 if len(report.run.hosts) > 1 else None,
        note="Medians over each rank's timed steps, waits in collectives included.",
    )


def _hosts(report: Report) -> Table:
    """Returns the hosts; no rows for a single one."""
    own = any(row.own_ns is not None for row in report.hosts)
    columns = (
        Column("host"),
        Column("ranks"),
        Column("slow ranks", COUNT),
        Column("iteration", TIME, "iteration", bar=True),
        *((Column("own time", TIME, "own time", bar=True), Column("wait", TIME, "wait")) if own else ()),
        Column("data wait", TIME),
        Column("largest peak memory", BYTES),
    )
    rows = report.hosts if len(report.hosts) > 1 else ()
    cells: list[list[Value]] = [
        [
            one_line(row.host),
            number_spans(row.ranks),
            len(row.slow),
            row.iteration_ns,
            *([row.own_ns, row.wait_ns] if own else []),
            row.data_ns,
            row.peak_memory_bytes,
        ]
        for row in rows
    ]
    marked = [place for place, row in enumerate(rows) if row.slow]
    return Table("Hosts", columns, cells, marked, note="Medians over the ranks of each host.")


def _remark(report: Report, row: RankRow, slow: set[int]) -> str:
    why = report.run.incomplete.get(row.rank, "")
    remarks = ["named by the verdict" if row.rank in slow else "", f"incomplete: {one_line(why)}" if why else ""]
    return "; ".join(filter(None, remarks))


def _bursts(report: Report) -> Table:
    columns = (
        Column("iterations"),
        Column("of timed steps", COUNT),
        Column("ranks"),
        Column("where"),
        Column("each longer by", TIME, bar=True),
        Column("pause"),
    )
    cells: list[list[Value]] = [
        [
            number_spans(one.iterations),
            one.of_steps,
            "all" if one.everywhere else number_spans(one.ranks),
            one_line(place_name(one.subject, one.phase)),
            one.excess_ns,
            one_line(one.pause),
        ]
        for one in report.verdict.bursts
    ]
    return Table("Why some iterations are long", columns, cells)


def _long_steps(report: Report) -> Table:
    columns = (
        Column("iteration", COUNT, "iteration"),
        Column("time", TIME, bar=True),
        Column("made long by ranks"),
        Column("where"),
        Column("longer by", TIME, bar=True),
        Column("pause"),
    )
    cells: list[list[Value]] = [
        [
            one.iteration,
            one.time_ns,
            "all" if one.everywhere else number_spans(one.ranks) or "not known",
            one_line(place_name(one.subject, one.phase)) if one.subject else "not known",
            one.excess_ns,
            one_line(one.pause),
        ]
        for one in report.long_steps
    ]
    note = f"Iterations of more than {LONG_STEP:g} x the median."
    return Table("Long iterations", columns, cells, note=note)


def _skew(rows: tuple[SkewRow, ...], title: str, subject: str) -> Table:
    by_module = subject == "module"
    waits = any(row.wait_ns is not None for row in rows)
    columns = [
        Column(subject, term="" if by_module else "phase"),
        *([Column("phase", term="phase")] if by_module else []),
        *([Column("wait", TIME, "wait")] if waits else []),
        *(Column(name, TIME) for name in ("min", "median", "max")),
        Column("max/median", RATIO),
        Column("excess", TIME, "excess", bar=True),
        Column("of rank", RANK),
        Column("ranks", COUNT),
    ]
    cells: list[list[Value]] = [
        [
            one_line(row.subject) if by_module else phase_title(row.subject),
            *([row.phase] if by_module else []),
            *([row.wait_ns] if waits else []),
            row.min_ns,
            row.median_ns,
            row.max_ns,
            row.ratio,
            row.excess_ns,
            row.slowest_rank,
            row.ranks,
        ]
        for row in rows
    ]
    note = "Own times, without waits in collectives." if waits else "Self times: waits in collectives are not known."
    return Table(title, columns, cells, note=note)


def _phases(report: Report) -> Table:
    waits = any(row.wait_ns is not None for row in report.time.phases)
    columns = [
        Column("phase", term="phase"),
        Column("median", TIME, bar=True),
        *([Column("wait", TIME, "wait")] if waits else []),
        Column("share", SHARE),
        Column("what it is", wide=True),
        Column("what to look at where it is long", wide=True),
    ]
    cells: list[list[Value]] = [
        [
            phase_title(row.phase),
            row.median_ns,
            *([row.wait_ns] if waits else []),
            row.share,
            row.meaning,
            row.look_at,
        ]
        for row in report.time.phases
    ]
    return Table("Phases of an iteration", columns, cells, note="Medians over the ranks, waits included.")


def _self_times(report: Report, rows: tuple[SelfTime, ...], title: str) -> Table:
    by_class = rows is report.time.classes
    own = report.time.has_own_times
    columns = [
        *([Column("class"), Column("modules", COUNT)] if by_class else [Column("module"), Column("class")]),
        Column("forward", TIME, "self time", bar=True),
        Column("backward", TIME, "self time", bar=True),
        *([Column("wait", TIME, "wait")] if own else []),
        Column("share", SHARE),
    ]
    cells: list[list[Value]] = [
        [
            one_line(row.subject) + " (itself)" * row.contains,
            row.modules if by_class else one_line(row.class_name),
            row.forward_ns,
            row.backward_ns,
            *([row.wait_ns] if own else []),
            row.share,
        ]
        for row in rows
    ]
    over = "Means over the ranks." if by_class else "Medians over the ranks that have a module."
    waits = "Waits in collectives are left out." if own else "Waits for other ranks are included: they are not known."
    note = f"Without the modules inside. {over} {waits if len(report.ranks) > 1 else ''}".rstrip()
    return Table(title, columns, cells, note=f"{note} Share: of forward and backward in the median iteration.")


def _collectives(report: Report) -> Table:
    columns = (
        Column("group"),
        Column("op"),
        Column("groups", COUNT),
        Column("ranks", COUNT),
        Column("calls", NUMBER),
        Column("bytes", BYTES),
        Column("own", TIME, "own time"),
        Column("wait", TIME, "wait", bar=True),
        Column("transfer", TIME, "transfer"),
        Column("bandwidth", RATE),
        Column("share of iteration", SHARE),
    )
    cells: list[list[Value]] = [
        [
            one_line(row.kind),
            one_line(row.op),
            row.groups,
            row.members,
            row.calls,
            row.bytes,
            row.own_ns,
            row.wait_ns,
            row.transfer_ns,
            row.bytes_per_second,
            row.share,
        ]
        for row in report.collectives.rows
    ]
    note = "Of one rank in one iteration: means over the ranks that take part, and over the timed steps."
    return Table("Collectives", columns, cells, note=note)


def _waits(report: Report) -> Table:
    slow = {one.rank for one in report.verdict.ranks.named}
    waits = report.collectives.waits
    columns = (
        Column("rank", RANK, "rank"),
        Column("wait", TIME, "wait", bar=True),
        Column("arrival lag", TIME, "arrival lag"),
        Column("times last", COUNT),
    )
    cells: list[list[Value]] = [[one.rank, one.wait_ns, one.lag_ns, one.last] for one in waits]
    marked = [place for place, one in enumerate(waits) if one.rank in slow]
    return Table("Who waits, and who comes late", columns, cells, marked)


def _experts(report: Report) -> Table:
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


def _pipeline(report: Report) -> Table:
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


def _memory(report: Report) -> Table:
    columns = (
        Column("rank", RANK, "rank"),
        Column("what"),
        Column("holds", BYTES, bar=True),
        Column("median of its cohort", BYTES, "cohort"),
    )
    cells: list[list[Value]] = [[one.rank, one.what, one.own_bytes, one.cohort_bytes] for one in report.memory]
    return Table("Ranks that hold more or less than their cohort", columns, cells)


def _work(report: Report) -> Table:
    kinds = ("forward", "backward", "recompute", "optimizer")
    columns = (Column("where"), *(Column(f"{kind} flops", NUMBER, "FLOPs, flops") for kind in kinds))
    cells: list[list[Value]] = [[row.where, *(getattr(row, f"{kind}_flops") for kind in kinds)] for row in report.work]
    return Table("Flops of one iteration", columns, cells, note="Means over the ranks that counted.")


def _ops(report: Report) -> Table:
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
