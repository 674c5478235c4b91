"""The block on warm-up iterations: their phases, and that nothing else is made of them."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import common_unit, duration
from distprof.merge.report import Report
from distprof.merge.text.format.lines import heading, table, wrapped
from distprof.merge.wording import phase_title, pluralise
from distprof.rank_names import number_spans
from distprof.records import PHASES


def warmup_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where no warm-up iteration was seen."""
    rows = report.warmup
    if not rows:
        return
    yield heading("Warm-up iterations")
    unit = common_unit(row.duration_ns for row in rows)
    yield from wrapped(
        f"Times in {unit.name}.  The job still starts in these iterations: no other figure of the report includes them."
        "  Means over the ranks, waits for other ranks included; longest: on the rank where it took longest.  The first"
        " one begins with the first call of a model."
    )
    phases = [phase for phase in PHASES if any(row.phases_ns.get(phase) for row in rows)]
    yield from table(
        ["iteration", "ranks", "time", "longest", *map(phase_title, phases)],
        [
            [
                str(row.iteration),
                str(row.ranks),
                unit.format(row.duration_ns),
                unit.format(row.longest_ns),
                *(unit.format(row.phases_ns.get(phase)) for phase in phases),
            ]
            for row in rows
        ],
    )


def warmup_words(report: Report) -> str:
    """Returns what was seen of a job without a timed step: ``no step was timed; ...``; empty where nothing was."""
    rows = report.warmup
    if not rows:
        return ""
    times = ", ".join(duration(row.duration_ns) for row in rows)
    numbers = number_spans(row.iteration for row in rows)
    return f"no step was timed; {pluralise(len(rows), 'warm-up iteration')} ({numbers}) took {times}"
