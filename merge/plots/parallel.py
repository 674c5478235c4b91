"""Draws all plots of a report in several processes, because drawing takes most of the time of a small merge.

The merge draws them in a process beside it, which imports matplotlib once for its own processes, one a processor.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing import get_context

from distprof.merge import plots
from distprof.merge.processors import usable_processors
from distprof.merge.report import Report

#: The report that a process of the pool draws from.
_report: Report | None = None
#: The files of all plots by name, in the order of the plots; sentences on plots that could not be drawn.
Drawn = tuple[dict[str, bytes], list[str]]


def draw_all(report: Report) -> Drawn:
    """Draws all plots, in this process those that others did not."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its messages about caches do not matter to the user
    files: dict[str, dict[str, bytes]] = {}
    with suppress(Exception):  # this process draws what is left
        for name, future in _in_processes(report):
            files[name] = future.result()
    failed: dict[str, list[str]] = {}
    for name in plots.NAMES:
        if name not in files:
            try:
                files[name] = plots.draw(name, report)
            except Exception as error:
                failed.setdefault(f"{type(error).__name__}: {error}", []).append(name)
    return (
        {file: content for name in plots.NAMES for file, content in files.get(name, {}).items()},
        [f"not drawn, matplotlib cannot: {', '.join(names)} ({why})" for why, names in failed.items()],
    )


def _in_processes(report: Report) -> Iterator[tuple[str, Future[dict[str, bytes]]]]:
    """Yields each plot when it is done; none where processes cannot be forked, or there is one processor."""
    workers = min(len(plots.NAMES), usable_processors())
    if workers < 2 or sys.platform != "linux":
        return
    plots.loaded_style()  # before the fork, once for all processes
    pool = ProcessPoolExecutor(workers, get_context("fork"), initializer=_begin, initargs=(report,))
    with pool:
        futures = {pool.submit(_draw, name): name for name in plots.NAMES}
        for future in as_completed(futures):
            yield futures[future], future


def _begin(report: Report) -> None:
    global _report  # noqa: PLW0603  each process of the pool has one report
    _report = report
    gc.freeze()  # a collection would copy the pages of the report, which may be large
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends with the merge, without a traceback


def _draw(name: str) -> dict[str, bytes]:
    assert _report is not None
    return plots.draw(name, _report)
