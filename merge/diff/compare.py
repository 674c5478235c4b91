"""Compares two runs: the sections of the comparison, each from both reports.

Analysis -> Side (report, samples of places) x 2 -> setup, figures, places, work, verdict -> Diff
"""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.diff.conclusion import conclude
from distprof.merge.diff.data import Diff, Places
from distprof.merge.diff.figures import figures
from distprof.merge.diff.places import compare_places
from distprof.merge.diff.samples import Side, iteration_samples
from distprof.merge.diff.setup import setup_differences, trains_alike, why_not_comparable
from distprof.merge.diff.work import collective_changes, verdict_change, work_changes
from distprof.merge.report import Report


def compare(first: Side, second: Side) -> Diff:
    """Returns the comparison.  Where times cannot be compared, there are no figures and no places.

    Of repeated runs, times are compared over all of them, and the rest is that of the first ones.
    """
    one, other = first.report, second.report
    why_not = why_not_comparable(one, other)
    compared = () if why_not else figures(first, second)
    return Diff(
        first=_names(first),
        second=_names(second),
        conclusion=conclude(compared, alike=trains_alike(one, other)),
        why_not=why_not,
        setup=setup_differences(one, other),
        figures=compared,
        places=Places() if why_not else compare_places(first, second),
        collectives=() if why_not or _why_no_collectives(one, other) else collective_changes(one, other),
        work=() if why_not else work_changes(one, other),
        verdict=verdict_change(one, other),
        iterations_ns=(_iterations_ns(first), _iterations_ns(second)),
        notes=tuple(_notes(first, second)),
    )


def _names(side: Side) -> str:
    names = ", ".join(dict.fromkeys(report.run.name for report in side.reports))
    return f"{names} ({len(side.runs)} runs)" if side.again else names


def _iterations_ns(side: Side) -> tuple[float, ...]:
    return tuple(time for report in side.reports for time in iteration_samples(report).ravel().tolist())


def _why_no_collectives(first: Report, second: Report) -> str:
    """Returns why collectives are not compared: only one of the runs recorded them."""
    seen = [bool(report.collectives.rows) for report in (first, second)]
    if all(seen) or not any(seen):
        return ""
    name, report = ("first", first) if not seen[0] else ("second", second)
    return f"collectives are not compared: {report.collectives.why_not or 'none were recorded'} ({name} run)"


def _notes(first: Side, second: Side) -> Iterator[str]:
    if why := _why_no_collectives(first.report, second.report):
        yield why
    runs = [(name, report.run) for name, side in (("first", first), ("second", second)) for report in side.reports]
    for name, run in runs:
        if run.missing_ranks or run.incomplete:
            missing, early = len(run.missing_ranks), len(run.incomplete)
            yield f"the {name} run is incomplete: {missing} ranks are missing, {early} stopped early"
