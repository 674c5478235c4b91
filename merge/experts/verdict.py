"""Decides whether an expert is overloaded."""

from __future__ import annotations

from distprof.merge.analysis import Analysis
from distprof.merge.experts.load import expert_layers
from distprof.merge.report import BALANCED, NOT_SEEN, OVERLOADED, ExpertVerdict

#: An expert is called overloaded from this max/mean up.
OVERLOAD = 1.25


def expert_verdict(analysis: Analysis) -> ExpertVerdict:
    """Returns the expert with the largest load relative to its layer's mean, and whether it is overloaded."""
    loads = [(layer.max_over_mean, layer) for layer in expert_layers(analysis) if layer.max_over_mean is not None]
    if not loads:
        return ExpertVerdict(NOT_SEEN, "", None, None, OVERLOAD)
    load, layer = max(loads, key=lambda pair: pair[0])
    return ExpertVerdict(OVERLOADED if load >= OVERLOAD else BALANCED, layer.name, layer.hottest, load, OVERLOAD)
