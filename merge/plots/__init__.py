"""The report's pictures: a file a plot, each with ``draw(report)``: its figure, or None when there is nothing to draw.

Nothing here imports matplotlib before the first picture is drawn.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from distprof.merge.report import Report

#: Every plot there is, in the order in which they are drawn.
NAMES = ("iteration_by_rank", "skew_map", "step_spread", "expert_load", "expert_ranked")
FORMATS = ("png", "svg")


def draw(name: str, report: Report) -> dict[str, bytes]:
    """The plot's files by name, in every format; none when the report has nothing for it.

    The same report gives the same bytes, whatever the user's matplotlib settings are.
    """
    style = loaded_style()
    plot = import_module(f"distprof.merge.plots.{name}")
    files: dict[str, bytes] = style.files_of(name, lambda: plot.draw(report))
    return files


def loaded_style() -> Any:
    """What all plots share, and matplotlib with it.

    No figure here needs a backend; a notebook's, which MPLBACKEND hands on to every process, may not even be there.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        return import_module("distprof.merge.plots.style")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
