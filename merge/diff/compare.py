"""Compares two runs: the sections of the comparison, each from both reports.

Analysis -> Side (report, samples of places) x 2 -> setup, figures, places, work, verdict -> Diff
"""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.analyse import report_of
from distprof.merge.analysis import Analysis
from distprof.merge.diff.data import Diff
from distprof.merge.diff.figures import figures
from distprof.merge.diff.places import place_changes, why_no_places
from distprof.merge.diff.samples import Side, place_samples
from distprof.merge.diff.setup import setup_differences, why_not_comparable
from distprof.merge.diff.work import collective_changes, verdict_change, work_changes


def side_of(analysis: Analysis) -> Side:
    """Returns a run as a side of a comparison."""
    return Side(report_of(analysis), place_samples(analysis))


def compare(first: Side, second: Side) -> Diff:
    """Returns the comparison.  Where times cannot be compared, there are no figures and no places."""
    one, other = first.report, second.report
    why_not = why_not_comparable(one, other)
    common, places = (None, ()) if why_not else place_changes(first, second)
    return Diff(
        first=one.run.name,
        second=other.run.name,
        why_not=why_not,
        setup=setup_differences(one, other),
        figures=() if why_not else figures(one, other),
        common=common,
        places=places,
        why_no_places="" if why_not else why_no_places(first, second),
        collectives=() if why_not else collective_changes(one, other),
        work=() if why_not else work_changes(one, other),
        verdict=verdict_change(one, other),
        notes=tuple(_notes(first, second)),
    )


def _notes(first: Side, second: Side) -> Iterator[str]:
    for name, side in (("first", first), ("second", second)):
        run = side.report.run
        if run.missing_ranks or run.incomplete:
            missing, early = len(run.missing_ranks), len(run.incomplete)
            yield f"the {name} run is incomplete: {missing} ranks are missing, {early} stopped early"
