"""The folder that ``distprof.record()`` yields: a path, which also makes the run's report."""

from __future__ import annotations

from pathlib import Path, PosixPath
from typing import TYPE_CHECKING

from distprof.errors import DistprofError

if TYPE_CHECKING:
    from distprof.results.loaded_report import RunReport


class RecordedRun(PosixPath):
    """The folder of a run, as a path.  A notebook shows the run's report in its place."""

    def report(self) -> RunReport:
        """Returns the report of all ranks that have recorded so far; :func:`distprof.load` says what it raises."""
        from distprof.results.loaded_report import load

        return load(Path(self))

    def _repr_html_(self) -> str | None:
        """Returns the first page of the report; None, for the path itself, where nothing is recorded yet."""
        try:
            return self.report()._repr_html_()
        except DistprofError:
            return None
