"""The plots of the report: one module for each, whose ``draw(report)`` returns the figure, or None without data.

Nothing here imports matplotlib before the first plot is drawn.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from distprof.merge.report import Report

#: All plots, in the order in which they are drawn.
NAMES = (
    "iteration_by_rank",
    "hosts",
    "skew_map",
    "rank_grid",
    "module_map",
    "self_times",
    "step_spread",
    "data_wait",
    "collectives",
    "arrival_lag",
    "timeline",
    "pipeline",
    "memory",
    "expert_load",
    "expert_ranks",
    "expert_steps",
    "expert_times",
    "expert_drops",
    "expert_traffic",
)
_OF_EXPERTS = "expert_"
FORMATS = ("png", "svg")


def draw(name: str, report: Report) -> dict[str, bytes]:
    """Returns the files of a plot by name, one for each format; none where the report has no data for it.

    The same report gives the same bytes, independent of the user's matplotlib settings.
    """
    style = loaded_style()
    folder = "experts." if name.startswith(_OF_EXPERTS) else ""
    plot = import_module(f"distprof.merge.plots.{folder}{name}")
    files: dict[str, bytes] = style.files_of(name, lambda: plot.draw(report))
    return files


def loaded_style() -> Any:
    """Imports and returns the module that all plots share, and with it matplotlib.

    MPLBACKEND is hidden meanwhile: no figure here needs a backend, and that of a notebook may not be installed.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        return import_module("distprof.merge.plots.style")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
