"""One iteration of some ranks, as the page's scripts draw it: spans as numbers, names once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distprof.merge.html.drawings.charts import PHASE_COLOURS
from distprof.merge.quantities import duration
from distprof.merge.report import Report, Span
from distprof.merge.text.format.lines import one_line
from distprof.merge.wording import phase_title, pluralise

#: The kinds of spans, in the order of their lanes.
KINDS = ("phases", "modules", "waits", "collectives", "pauses")
_NS_PER_US = 1000


def step_timeline(report: Report) -> dict[str, Any]:
    """Returns for each rank and kind a flat list of (number of the name, start, length), times in us.

    Empty where no timeline was recorded.
    """
    found = report.timeline
    if not found.ranks:
        return {}
    names: dict[str, int] = {}
    slow = {one.rank for one in report.verdict.ranks.named}

    def flat(spans: Iterable[Span], kind: str) -> list[int]:
        numbers: list[int] = []
        for span in spans:
            name = phase_title(span.name) if kind == "phases" else one_line(span.name)
            start = span.start_ns // _NS_PER_US
            numbers += (names.setdefault(name, len(names)), start, span.end_ns // _NS_PER_US - start)
        return numbers

    ranks = [
        {"rank": one.rank, "slow": one.rank in slow, **{kind: flat(getattr(one, kind), kind) for kind in KINDS}}
        for one in found.ranks
    ]
    colours = {phase_title(phase): colour for phase, colour in PHASE_COLOURS.items()}
    return {
        "iteration": found.iteration,
        "note": _note(report),
        "names": list(names),
        "colours": {str(names[title]): colour for title, colour in colours.items() if title in names},
        "ranks": ranks,
    }


def _note(report: Report) -> str:
    found = report.timeline
    more = f" {pluralise(found.left_out, 'other rank')} are left out." if found.left_out else ""
    if found.bound_ns is None:
        clocks = " The clocks of the hosts were not compared: ranks of different hosts may be shifted."
    else:
        clocks = f" Ranks of different hosts are exact to {duration(found.bound_ns)}." if found.bound_ns else ""
    return f"Iteration {found.iteration}, whose length is nearest to the median, on one clock.{more}{clocks}"
