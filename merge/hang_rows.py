"""The hangs of a run, as its daemons found them."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.analysis import Analysis
from distprof.merge.load.run import LoadedRun
from distprof.merge.quantities import NS_PER_SECOND
from distprof.merge.report import HangRow


def hang_rows(analysis: Analysis) -> tuple[HangRow, ...]:
    """Returns the hangs in the order in which they were found."""
    return tuple(_rows(analysis.run))


def _rows(run: LoadedRun) -> Iterator[HangRow]:
    for hang in run.hangs:
        still_s = (hang.moved_wall_ns - hang.wall_ns) / NS_PER_SECOND if hang.moved_wall_ns else None
        yield HangRow(
            kind=hang.kind,
            ranks=hang.ranks,
            waiting=hang.waiting,
            iteration=hang.iteration,
            age_s=hang.age_s,
            wall_ns=hang.wall_ns,
            still_s=still_s,
            cause=hang.cause,
            where=hang.where,
            evidence=hang.evidence,
        )


def hang_notes(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for each hang after which the job did not go on."""
    for row in _rows(analysis.run):
        if row.still_s is None:
            yield f"the job stood still in iteration {row.iteration}, {row.kind}: {row.cause}"
