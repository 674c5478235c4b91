"""The tables of the page on single iterations: long ones, hangs, and those of the warm-up; and on earlier windows."""

from __future__ import annotations

from distprof.merge.html.drawings.model import COUNT, SHARE, TIME, Column, Table, Value
from distprof.merge.report import LONG_STEP, Report
from distprof.merge.text.blocks.hangs import times_words
from distprof.merge.text.blocks.reduced_windows import MEANING, slow_words
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title, place_name
from distprof.rank_names import number_spans
from distprof.records import PHASES


def bursts_table(report: Report) -> Table:
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


def long_steps_table(report: Report) -> Table:
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


def hangs_table(report: Report) -> Table:
    """Returns the times in which the job stood still."""
    columns = (
        Column("iteration", COUNT, "iteration"),
        Column("kind"),
        Column("cause", wide=True),
        Column("what each rank did", wide=True),
        Column("when", wide=True),
    )
    cells: list[list[Value]] = [
        [
            one.iteration,
            one_line(one.kind),
            one_line(one.cause),
            one_line(". ".join([one.where, *one.evidence])),
            times_words(one),
        ]
        for one in report.hangs
    ]
    return Table("Hangs: the job stood still", columns, cells, list(range(len(cells))))


def warmup_table(report: Report) -> Table:
    """Returns the warm-up iterations with their phases."""
    phases = [phase for phase in PHASES if any(row.phases_ns.get(phase) for row in report.warmup)]
    columns = (
        Column("iteration", COUNT, "iteration"),
        Column("ranks", COUNT),
        Column("time", TIME, bar=True),
        Column("on the longest rank", TIME),
        *(Column(phase_title(phase), TIME, "phase") for phase in phases),
    )
    cells: list[list[Value]] = [
        [row.iteration, row.ranks, row.duration_ns, row.longest_ns, *(row.phases_ns.get(phase) for phase in phases)]
        for row in report.warmup
    ]
    note = "Means over the ranks. The job still starts in these iterations: no other figure includes them."
    return Table("Warm-up iterations", columns, cells, note=note)


def reduced_windows_table(report: Report) -> Table:
    """Returns the earlier windows of which only summaries are left."""
    columns = (
        Column("window", COUNT, "window"),
        Column("from iteration", COUNT, "iteration"),
        Column("ranks", COUNT),
        Column("median iteration", TIME, bar=True),
        Column("longest iteration", TIME),
        Column("MFU", SHARE, "MFU"),
        Column("slow"),
    )
    cells: list[list[Value]] = [
        [one.number, one.first_iteration, one.ranks, one.iteration_ns, one.longest_ns, one.mfu, slow_words(one)]
        for one in report.run.reduced_windows
    ]
    return Table("Earlier windows", columns, cells, note=MEANING)
