"""Measures of MoE layers over the steps as tables, for the charts that have a line for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distprof.merge.arrays import FloatArray
from distprof.merge.plots import style
from distprof.merge.report import ExpertLayerStats, Report

FEWEST_STEPS = 2


def layers_over_steps(report: Report) -> tuple[list[ExpertLayerStats], list[int]]:
    """Returns the layers that have measures over the steps, and the iterations of all of them, ascending."""
    layers = [layer for layer in report.experts if layer.over_steps is not None]
    return layers, sorted({step for layer in layers if layer.over_steps for step in layer.over_steps.iterations})


def table_over_steps(layers: Sequence[ExpertLayerStats], steps: Sequence[int], measure: str) -> FloatArray:
    """Returns a field of ``over_steps`` as (layers, steps), NaN where a layer has no value in a step."""
    table = np.full((len(layers), len(steps)), np.nan)
    for row, layer in enumerate(layers):
        found = layer.over_steps
        if found is not None and (values := getattr(found, measure)):
            table[row, np.searchsorted(steps, found.iterations)] = style.to_array([values])[0]
    return table
