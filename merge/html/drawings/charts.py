"""The charts of the page: series over ranks or iterations."""

from __future__ import annotations

from statistics import median

from distprof.merge.html.drawings.expert_charts import expert_charts
from distprof.merge.html.drawings.model import BYTES, TIME, Chart, Series
from distprof.merge.html.drawings.rank_tables import shown_phases
from distprof.merge.report import HOLDINGS, Report
from distprof.merge.wording import phase_title
from distprof.records import PHASES

#: Numbers of the page's palette by phase; the same phase has the same colour everywhere.
PHASE_COLOURS = {phase: number for number, phase in enumerate(PHASES)}


def charts(report: Report) -> dict[str, Chart]:
    """Returns the charts that have data, by the names of their places on the page."""
    found = {
        "phases_by_rank": _phases(report),
        "steps": _steps(report),
        "waits_by_rank": _waits(report),
        "memory_by_rank": _memory(report),
        **expert_charts(report),
    }
    return {name: chart for name, chart in found.items() if chart is not None}


def _slow(report: Report) -> list[int]:
    return [one.rank for one in report.verdict.ranks.named]


def _phases(report: Report) -> Chart | None:
    rows = [row for row in report.ranks if row.iteration_ns is not None]
    if len(rows) < 2:
        return None
    series = [
        Series(phase_title(phase), [row.phases_ns.get(phase) for row in rows], "stack", PHASE_COLOURS[phase])
        for phase in shown_phases(report)
    ]
    note = "A rank that waits for others in a collective has a long phase, too: the skew map has own times."
    return Chart("One iteration by rank", "rank", [row.rank for row in rows], TIME, series, _slow(report), note)


def _by_iteration(report: Report) -> dict[int, list[int]]:
    """Returns the durations (ns) of each timed iteration on all ranks."""
    found: dict[int, list[int]] = {}
    for row in report.ranks:
        for iteration, duration_ns in zip(row.step_iterations, row.step_durations_ns, strict=True):
            found.setdefault(iteration, []).append(duration_ns)
    return dict(sorted(found.items()))


def _steps(report: Report) -> Chart | None:
    times = _by_iteration(report)
    if len(times) < 2:
        return None
    typical = "median rank" if len(report.ranks) > 1 else "time"
    series = [Series(typical, [float(median(own)) for own in times.values()], "line", 1)]
    if len(report.ranks) > 1:
        series += [
            Series("slowest rank", [float(max(own)) for own in times.values()], "line", 3),
            Series("fastest rank", [float(min(own)) for own in times.values()], "line", 0),
        ]
    long = report.summary.iterations.long if report.summary.iterations else ()
    return Chart("Iterations", "iteration", list(times), TIME, series, list(long))


def _waits(report: Report) -> Chart | None:
    waits = report.collectives.waits
    if len(waits) < 2:
        return None
    series = [
        Series("wait", [one.wait_ns for one in waits], "stack", 6),
        Series("arrival lag", [one.lag_ns for one in waits], "points", 3),
    ]
    ranks = [one.rank for one in waits]
    return Chart("Waits in collectives by rank", "rank", ranks, TIME, series, _slow(report))


def _memory(report: Report) -> Chart | None:
    rows = [row for row in report.ranks if row.peak_memory_bytes is not None or row.parameter_bytes is not None]
    if len(rows) < 2:
        return None
    series = [
        Series(what, [getattr(row, field) for row in rows], "line" if what == "peak" else "stack", colour)
        for colour, (what, field) in zip((1, 2, 4, 3), HOLDINGS.items(), strict=True)
        if any(getattr(row, field) is not None for row in rows)
    ]
    return Chart("Memory by rank", "rank", [row.rank for row in rows], BYTES, series, y_title="memory")
