"""Expert loads relative to a layer's mean, as the expert plots draw them."""

from __future__ import annotations

from statistics import fmean

from distprof.merge.report import ExpertLayerStats, Report


def loaded_layers(report: Report) -> list[ExpertLayerStats]:
    """Returns the layers that processed any token."""
    return [layer for layer in report.experts if any(layer.tokens)]


def relative_loads(layer: ExpertLayerStats) -> list[float | None]:
    """Returns tokens / mean over recorded experts, for each expert; None where no recorded rank hosts the expert."""
    mean = fmean(tokens for tokens in layer.tokens if tokens is not None)
    return [None if tokens is None else tokens / mean for tokens in layer.tokens]
