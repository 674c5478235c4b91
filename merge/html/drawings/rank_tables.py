"""The tables of the page with a row for each rank or host: times, hosts, memory."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.html.drawings.model import BYTES, COUNT, RANK, SHARE, TIME, Column, Table, Value
from distprof.merge.report import RankRow, Report
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title
from distprof.rank_names import number_spans
from distprof.records import PHASES


def shown_phases(report: Report) -> list[str]:
    """Returns the phases in which any rank spent time, or may have."""
    return [phase for phase in PHASES if any(row.phases_ns.get(phase) != 0 for row in report.ranks)]


def shown_axes(report: Report) -> list[str]:
    """Returns the axes on which the job has several coordinates."""
    return [axis for axis, size in report.topology.sizes.items() if size > 1]


def ranks_table(report: Report) -> Table:
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


def _remark(report: Report, row: RankRow, slow: set[int]) -> str:
    why = report.run.incomplete.get(row.rank, "")
    remarks = ["named by the verdict" if row.rank in slow else "", f"incomplete: {one_line(why)}" if why else ""]
    return "; ".join(filter(None, remarks))


def hosts_table(report: Report) -> Table:
    """Returns the hosts, those with slow ranks first; no rows for a single one."""
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
    rows = sorted(report.hosts, key=lambda row: -len(row.slow)) if len(report.hosts) > 1 else []
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


def memory_table(report: Report) -> Table:
    columns = (
        Column("rank", RANK, "rank"),
        Column("what"),
        Column("holds", BYTES, bar=True),
        Column("median of its cohort", BYTES, "cohort"),
    )
    cells: list[list[Value]] = [[one.rank, one.what, one.own_bytes, one.cohort_bytes] for one in report.memory]
    return Table("Ranks that hold more or less than their cohort", columns, cells)
