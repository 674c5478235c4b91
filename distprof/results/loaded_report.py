"""``distprof.load()``: the report of a run in Python, as typed objects and as pandas data frames, without torch.

    folder with shards -> merged in memory        folder or file of a report -> read from summary.json

A run is merged each time, although its folder may hold a report: that may be older than the shards (the job still ran),
of another window or another version of distprof, and ``summary.json`` lacks the times of all modules on all ranks.
"""

from __future__ import annotations

import html
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from distprof.config.run_options import options_of_run
from distprof.errors import DataError, UsageError
from distprof.merge.analyse import analyse
from distprof.merge.export.json import from_json
from distprof.merge.export.tables import NAMES, make_one
from distprof.merge.export.tables.table import Table
from distprof.merge.load.run import load_run
from distprof.merge.report import Report
from distprof.merge.text import render_first_page
from distprof.peaks.cache import cache_file, read_peak_cache
from distprof.peaks.table import Peaks
from distprof.run_folder import MANIFEST, SHARDS, SUMMARY, RunFolder
from distprof.safe_files import read_regular

_MOST_BYTES = 1 << 31  # a report of 4,096 ranks has some 100 MB


class RunReport:
    """The report of one run.

    ``report`` has all of it as dataclasses (:class:`distprof.merge.report.Report`, which docs/REPORT.md describes).
    ``ranks``, ``steps``, ``modules``, ``module_times``, ``experts``, ``skew``, ``collectives`` and ``memory`` are its
    tables as pandas data frames; they raise UsageError where pandas is missing.  ``table(name).rows()`` needs no
    pandas.  ``print`` shows the first page, and so does a notebook.
    """

    def __init__(self, report: Report, source: str) -> None:
        self.report = report
        self.source = source  #: where the report comes from, for messages

    def table(self, name: str) -> Table:
        """Returns a table as plain columns.  Raises UsageError for an unknown name, DataError where it was not kept."""
        if name not in NAMES:
            raise UsageError(f"there is no table {name!r}: there are {', '.join(NAMES)}")
        if name == "module_times" and self.report.ranks and not self.report.module_times.ranks:
            raise DataError(
                f"{self.source} does not have the times of all modules on all ranks: load the run's folder, or read "
                "tables/module_times.csv"
            )
        return make_one(self.report, name)

    @cached_property
    def ranks(self) -> Any:
        """One row for each rank, as a data frame."""
        return self._frame("ranks")

    @cached_property
    def steps(self) -> Any:
        """One row for each timed iteration of each rank, as a data frame."""
        return self._frame("steps")

    @cached_property
    def modules(self) -> Any:
        """One row for each module, over the ranks that have it, as a data frame."""
        return self._frame("modules")

    @cached_property
    def module_times(self) -> Any:
        """One row for each module on each rank, as a data frame."""
        return self._frame("module_times")

    @cached_property
    def experts(self) -> Any:
        """One row for each expert of each MoE layer, as a data frame."""
        return self._frame("experts")

    @cached_property
    def skew(self) -> Any:
        """One row for each phase, and each module in each phase, over ranks, as a data frame."""
        return self._frame("skew")

    @cached_property
    def collectives(self) -> Any:
        """One row for each op in groups of one kind, as a data frame."""
        return self._frame("collectives")

    @cached_property
    def memory(self) -> Any:
        """One row for each kind of memory on each rank, as a data frame."""
        return self._frame("memory")

    def _frame(self, name: str) -> Any:
        try:
            import pandas
        except ImportError:
            raise UsageError(
                f"data frames need the package pandas: pip install 'distprof[pandas]', or use table({name!r}).rows()"
            ) from None
        return pandas.DataFrame({column.name: column.values for column in self.table(name).columns})

    def __repr__(self) -> str:
        run = self.report.run
        return (
            f"<distprof.RunReport {run.name}: {len(run.ranks)} of {run.world_size} ranks, "
            f"{len(self.report.modules)} modules; print() shows its first page>"
        )

    def __str__(self) -> str:
        return render_first_page(self.report)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def load(path: str | os.PathLike[str], *, window: int | None = None, peak_tflops: float | None = None) -> RunReport:
    """Returns the report of a run.  Does not import torch.

    ``path`` is the folder of a run, or one with shards: they are merged in memory, and nothing is written.  It may also
    be a ``summary.json`` or the folder that holds one, without shards; then ``module_times`` is missing.  ``window``
    is the number of the recording window, by default the last one; ``peak_tflops`` the peak of each device, for MFU.

    Raises DataError where there is no run or report, and UsageError for a window that is not there.
    """
    found = Path(path)
    if found.is_dir() and found.name == SHARDS and (found.parent / MANIFEST).is_file():
        found = found.parent
    summary = report_file(found)
    if summary is not None:
        if window is not None or peak_tflops is not None:
            raise UsageError(f"{summary} is a report already: give the run's folder for another window or peak")
        return RunReport(_read(summary), str(summary))
    run = load_run(found)
    kept = options_of_run(RunFolder(found)).get("peak_tflops")
    measured, _ = read_peak_cache(cache_file())
    peaks = Peaks(peak_tflops if peak_tflops is not None else _number(kept), measured)
    return RunReport(analyse(run, peaks, window), str(found))


def report_file(path: Path) -> Path | None:
    """Returns the ``summary.json`` that ``path`` is or holds; None for the folder of a run, which is merged."""
    summary = path if path.is_file() else path / SUMMARY
    return None if not summary.is_file() or (path.is_dir() and RunFolder(path).shard_files()) else summary


def _number(kept: Any) -> float | None:
    return None if kept is None else float(kept.value)


def _read(summary: Path) -> Report:
    try:
        return from_json(read_regular(summary, _MOST_BYTES), str(summary))
    except OSError as error:
        raise DataError(f"{summary} cannot be read: {error.strerror}") from None
