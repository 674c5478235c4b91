"""Whether the ranks that one window names are slow in the other windows of the run as well: always, or once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from distprof.merge.analysis import Analysis
from distprof.merge.report import NOT_ENOUGH, RankVerdict, WindowFinding

#: Of a run with more windows, only the last ones are compared: each takes as long as the verdict on one.
MOST_WINDOWS = 16


def over_windows(analysis: Analysis, found: RankVerdict, judge: Callable[[Analysis], RankVerdict]) -> RankVerdict:
    """Returns the verdict on the window of the report with what ``judge`` says of the other windows of the run."""
    numbers = analysis.run.window_numbers[-MOST_WINDOWS:]
    if len(numbers) < 2 or analysis.window not in numbers:
        return found
    findings = tuple(_findings(analysis, found, judge, numbers))
    ranks = {one.rank for one in found.named}
    again = tuple(one.window for one in findings if ranks and ranks <= set(one.ranks))
    return replace(found, windows=findings, windows_again=again)


def _findings(
    analysis: Analysis, found: RankVerdict, judge: Callable[[Analysis], RankVerdict], numbers: tuple[int, ...]
) -> Iterator[WindowFinding]:
    for number in numbers:
        own = found if number == analysis.window else judge(analysis.of_window(number))
        if own.finding != NOT_ENOUGH:
            yield WindowFinding(number, own.finding, tuple(sorted(one.rank for one in own.named)))
