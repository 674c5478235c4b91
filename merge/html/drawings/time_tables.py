"""The tables of the page on where time goes: phases, classes and modules, and where ranks disagree."""

from __future__ import annotations

from distprof.merge.html.drawings.model import COUNT, RANK, RATIO, SHARE, TIME, Column, Table, Value
from distprof.merge.quantities import common_unit
from distprof.merge.report import Report, SelfTime, Skew, SkewRow
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title


def phases_table(report: Report) -> Table:
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


def self_times_table(report: Report, rows: tuple[SelfTime, ...], title: str) -> Table:
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


def skew_table(skew: Skew, rows: tuple[SkewRow, ...], title: str, subject: str) -> Table:
    """Returns where ranks disagree; no rows where a single rank has times, as there is nothing to compare.

    No rank is the slowest where ranks cannot be compared, and none where the excess reads 0.
    """
    by_module = subject == "module"
    waits = any(row.wait_ns is not None for row in rows)
    unit = common_unit(value for row in rows for value in (row.max_ns, row.wait_ns))
    columns = [
        Column(subject, term="" if by_module else "phase"),
        *([Column("phase", term="phase")] if by_module else []),
        *([Column("wait", TIME, "wait")] if waits else []),
        *(Column(name, TIME) for name in ("min", "median", "max")),
        Column("max/median", RATIO),
        Column("excess", TIME, "excess", bar=True),
        Column("slowest rank", RANK, missing="-"),
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
            None if skew.too_few or unit.shows_zero(row.excess_ns) else row.slowest_rank,
            row.ranks,
        ]
        for row in (rows if any(row.ranks > 1 for row in rows) else ())
    ]
    note = "Own times, without waits in collectives." if waits else "Self times: waits in collectives are not known."
    return Table(title, columns, cells, note=note)
