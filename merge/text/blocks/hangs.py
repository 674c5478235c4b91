"""The block on hangs: when the job stood still, and which rank kept it standing."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.report import HangRow, Report
from distprof.merge.text.format.lines import heading, one_line, wrapped


def hangs_block(report: Report) -> Iterator[str]:
    """Yields the lines of the block; none where the job never stood still."""
    if not report.hangs:
        return
    yield heading("Hangs")
    for row in report.hangs:
        yield from wrapped(one_line(f"iteration {row.iteration}, {row.kind}: {row.cause}"), "", "  ")
        yield from wrapped(one_line(row.where), "  ", "  ")
        yield from (line for sentence in row.evidence for line in wrapped(one_line(sentence), "  ", "  "))
        yield from wrapped(times_words(row), "  ", "  ")


def times_words(row: HangRow) -> str:
    """Returns when a hang was found, and when the job went on."""
    after = "the job did not go on" if row.still_s is None else f"the job went on {row.still_s:.0f} s later"
    return f"found when the iteration had run for {row.age_s:.0f} s; {after}"
