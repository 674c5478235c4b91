"""The report's pictures: a file a plot, each with ``draw(report)``: its figure, or None when there is nothing to draw.

Nothing here imports matplotlib before the first picture is drawn.
"""

from __future__ import annotations

from importlib import import_module

from distprof.merge.report import Report

#: Every plot there is, in the order in which they are drawn.
NAMES = ("iteration_by_rank", "skew_map", "step_spread", "expert_load", "expert_ranked")
FORMATS = ("png", "svg")


def draw(name: str, report: Report) -> dict[str, bytes]:
    """The plot's files by name, in every format; none when the report has nothing for it.

    The same report gives the same bytes, whatever the user's matplotlib settings are.
    """
    style = import_module("distprof.merge.plots.style")
    plot = import_module(f"distprof.merge.plots.{name}")
    files: dict[str, bytes] = style.files_of(name, lambda: plot.draw(report))
    return files
