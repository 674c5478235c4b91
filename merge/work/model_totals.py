"""The whole model: its parameters and the work of its forward."""

from __future__ import annotations

from distprof.merge.analysis import Analysis
from distprof.merge.report import ModelTotals
from distprof.merge.work.exact_work import why_no_exact_work
from distprof.merge.work.model_flops import model_work
from distprof.merge.work.parameter_totals import Totals, evaluated_models
from distprof.merge.work.replica_check import certain_totals, find_doubts
from distprof.merge.work.suspected_experts import why_no_active


def model_totals(analysis: Analysis) -> ModelTotals:
    """Returns the totals; those that cannot be known are None, with a reason."""
    totals, doubts = certain_totals(analysis), find_doubts(analysis)
    why_no_work = doubts.why_no_work or why_no_exact_work(analysis)
    return ModelTotals(
        params_by_kind=totals.by_kind,
        active_params=totals.active,
        active_is_measured=totals.active_is_measured,
        why_no_active=_why_no_active(analysis, totals),
        uncovered=totals.uncovered,
        forward=None if why_no_work else model_work(analysis),
        why_no_forward=why_no_work,
        evaluated=evaluated_models(analysis),
        assumes_replicas=doubts.assumes_replicas,
    )


def _why_no_active(analysis: Analysis, totals: Totals) -> str:
    if totals.active is not None or totals.exact is None:
        return ""
    return why_no_active(analysis) or "the top-k is not known"
