"""The block on old windows of which only summaries are left."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.quantities import NOT_AVAILABLE, duration, percentage
from distprof.merge.report import ReducedWindow, Report, SlowInWindow
from distprof.merge.text.format.lines import heading, table, wrapped

MEANING = "Of these windows summaries are left. Only waits for data and longer iterations tell there who was slow."
#: Of more windows the last ones are shown; ``summary.json`` has all of them.
_MOST = 20


def reduced_windows_block(report: Report) -> Iterator[str]:
    """Yields a table with a line for each window; nothing where no window was reduced."""
    windows = report.run.reduced_windows
    if not windows:
        return
    yield heading("Earlier windows")
    yield from wrapped(MEANING)
    if len(windows) > _MOST:
        yield f"The last {_MOST} of {len(windows)}; summary.json has all."
    titles = ("window", "from iteration", "ranks", "median", "longest", "MFU", "slow")
    yield from table(titles, map(_row, windows[-_MOST:]), left=("slow",))


def _row(window: ReducedWindow) -> tuple[str, ...]:
    return (
        str(window.number),
        str(window.first_iteration),
        str(window.ranks),
        NOT_AVAILABLE if window.iteration_ns is None else duration(window.iteration_ns),
        duration(window.longest_ns),
        percentage(window.mfu, 1.0),
        slow_words(window) or "-",
    )


def slow_words(window: ReducedWindow) -> str:
    """Returns the ranks that were slow in a window, each with what it lost; empty where none was."""
    return ", ".join(map(_slow, window.slow))


def _slow(one: SlowInWindow) -> str:
    return f"rank {one.rank} (+{duration(one.excess_ns)}{' data' if one.phase else ''})"
