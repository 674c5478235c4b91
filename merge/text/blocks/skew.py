"""The Skew block: how far the ranks disagree, phase by phase and module by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import TimeUnit, common_unit, ratio
from distprof.merge.report import Report, Skew, SkewRow
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import phase_title

MODULES_SHOWN = 10
_SUBJECT_WIDTH = 44
_FIGURES = ("min", "median", "max", "max/median", "excess", "slowest", "ranks")
_WAIT = "wait"
_MEANING = (
    "A rank is compared only with ranks that do the same work (its cohort).  Excess is the largest (rank - median of"
    " the others of its cohort), and slowest is the rank that has it.  Modules are compared by self time, without the"
    " modules inside them."
)
_OWN = "  Times are own times: without waits in collectives, of which wait is the median over the ranks."


def skew_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none for a single rank, or without a timed step."""
    skew = report.skew
    if len(report.ranks) < 2 or not skew.phases:
        return
    every = (*skew.phases, *skew.modules)
    unit = common_unit(value for row in every for value in (row.max_ns, row.wait_ns))
    modules = [row for row in skew.modules[:MODULES_SHOWN] if not unit.shows_zero(row.excess_ns)]
    yield heading("Skew")
    yield from wrapped(f"Times in {unit.name}.  {_MEANING}{_OWN if skew.has_own_times else ''}")
    yield from _table(["phase"], [([phase_title(row.subject)], row) for row in skew.phases], skew, unit)
    short = shortened_apart([one_line(row.subject) for row in modules], _SUBJECT_WIDTH)
    names = [([short[one_line(row.subject)], row.phase], row) for row in modules]
    yield from _table(["module", "phase"], names, skew, unit)
    if 0 < len(modules) < len(skew.modules):
        yield f"The {len(modules)} of largest excess; {len(skew.modules) - len(modules)} more are in summary.json."


def _table(titles: list[str], rows: Sequence[tuple[list[str], SkewRow]], skew: Skew, unit: TimeUnit) -> Iterator[str]:
    if rows:
        yield ""
        wait = [_WAIT] if skew.has_own_times else []
        cells = [
            [*names, *(unit.format(row.wait_ns) for _ in wait), *_figures(row, unit, named=not skew.too_few)]
            for names, row in rows
        ]
        yield from table([*titles, *wait, *_FIGURES], cells, left=titles)


def _figures(row: SkewRow, unit: TimeUnit, *, named: bool) -> list[str]:
    slowest = f"rank {row.slowest_rank}" if named and not unit.shows_zero(row.excess_ns) else "-"
    figures = [unit.format(row.min_ns), unit.format(row.median_ns), unit.format(row.max_ns), ratio(row.ratio)]
    return [*figures, unit.format(row.excess_ns), slowest, str(row.ranks)]
