"""The block "Where the time goes": the phases with their meaning, then classes and modules by self time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distprof.merge.quantities import TimeUnit, common_unit, duration, whole_percent
from distprof.merge.report import PhaseTime, Report, SelfTime
from distprof.merge.text.format.lines import heading, one_line, table, wrapped
from distprof.merge.text.format.shortening import shortened_apart
from distprof.merge.wording import phase_title

_CLASSES_SHOWN = 10
_MODULES_SHOWN = 16
_NAME_WIDTH = 44
_WHOLE = 1.1  # of an iteration: medians of modules add up to a little more or less
_MEANING = (
    "Self time is the time of a module without the modules inside it, in one iteration; a module that has others inside"
    " is marked (itself).  A class is all its modules together.  share: of forward and backward in the median"
    " iteration."
)
_OVER_RANKS = "  Classes are means over the ranks, and modules medians over the ranks that have them."
_OWN = "  Waits in collectives are left out, and stand in the column wait."
_WITH_WAITS = "  Waits for other ranks are included, because they are not known."


def time_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where no step was timed."""
    use = report.time
    if not use.phases:
        return
    yield heading("Where the time goes")
    yield from _phases(report)
    rows = [*use.classes[:_CLASSES_SHOWN], *use.modules[:_MODULES_SHOWN]]
    if not rows:
        return
    unit = common_unit(time for row in rows for time in (row.forward_ns, row.backward_ns, row.wait_ns))
    several = _OVER_RANKS + (_OWN if use.has_own_times else _WITH_WAITS) if len(report.ranks) > 1 else ""
    yield ""
    yield from wrapped(f"Times in {unit.name}.  {_MEANING}{several}")
    for title, every, most in (("class", use.classes, _CLASSES_SHOWN), ("module", use.modules, _MODULES_SHOWN)):
        yield ""
        yield from _table(title, every[:most], unit, own=use.has_own_times)
        if len(every) > most:
            yield f"and {len(every) - most} more{_together(every, most)}, in summary.json."


def _together(every: Sequence[SelfTime], most: int) -> str:
    """Returns what the rows after ``most`` take together; empty where they cannot be added up: the modules of several
    pipeline stages run at the same time.
    """
    shares = [row.share for row in every]
    return f" with {whole_percent(sum(shares[most:]))} together" if sum(shares) <= _WHOLE else ""


def _phases(report: Report) -> Iterator[str]:
    """Yields for each phase its time, its meaning and what to look at."""
    for one in report.time.phases:
        start = f"{phase_title(one.phase):<16}{duration(one.median_ns):>11} {whole_percent(one.share):>5}  "
        yield from wrapped(f"{one.meaning}{_waits(one)}", start, " " * len(start))
        yield from wrapped(one.look_at, f"{'':<{len(start)}}-> ", " " * (len(start) + 3))
    iterations = report.summary.iterations
    if iterations and not report.time.phases_add_up:
        yield from wrapped(
            f"The phases sum to {duration(report.time.phases_sum_ns)}, and the median iteration takes"
            f" {duration(iterations.median_ns)}:"
            " each is a median of its own, and long steps are long in different phases."
        )


def _waits(one: PhaseTime) -> str:
    return f"; {duration(one.wait_ns)} of it are waits for other ranks" if one.wait_ns else ""


def _table(title: str, rows: Sequence[SelfTime], unit: TimeUnit, *, own: bool) -> Iterator[str]:
    counted = title == "class"
    names = shortened_apart([one_line(row.subject) for row in rows], _NAME_WIDTH)
    cells = [
        [
            names[one_line(row.subject)] + (" (itself)" if row.contains else ""),
            str(row.modules) if counted else one_line(row.class_name),
            unit.format(row.forward_ns),
            unit.format(row.backward_ns),
            *([unit.format(row.wait_ns)] if own else []),
            whole_percent(row.share),
        ]
        for row in rows
    ]
    second = "modules" if counted else "class"
    wait = ["wait"] if own else []
    yield from table([title, second, "forward", "backward", *wait, "share"], cells, left=["module", "class"])
