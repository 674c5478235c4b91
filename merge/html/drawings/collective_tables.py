"""The tables of the page on collectives, and on the ranks that wait in them."""

from __future__ import annotations

from distprof.merge.html.drawings.model import BYTES, COUNT, NUMBER, RANK, RATE, SHARE, TIME, Column, Table, Value
from distprof.merge.report import Report
from distprof.merge.text.format.lines import one_line


def collectives_table(report: Report) -> Table:
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


def waits_table(report: Report) -> Table:
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
