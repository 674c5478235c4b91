"""Reasons why a figure of the summary is missing, worded to follow "n/a: "."""

from __future__ import annotations

from dataclasses import fields

from distprof.merge.analysis import Analysis
from distprof.merge.report import Summary
from distprof.records import Ops

_BACKWARD_WORK = ("bwd_macs_per_rank", "bwd_flops_per_rank", "recompute_flops_per_rank")
_WORK = ("fwd_macs_per_rank", "fwd_flops_per_rank", "fwd_flops_of_model", *_BACKWARD_WORK)
PARAMETERS = ("params_per_rank", "params_of_model", "params_exact", "trainable_params_exact")
_BATCH = ("batch_size_per_rank", "samples_per_iteration")
_TRAINING = (*_BACKWARD_WORK, "bwd_latency_ns", "step_latency_ns")
_NO_TENSOR = "no tensor was seen among the inputs of the model"
_NO_IDS = "the first tensor that the model is given is no integer tensor of two dimensions, so it holds no ids"
_PARTS = "the ranks of a cp group have parts of the same samples, and which ones is not known"
_UNSEEN_UPDATE = "no step of a torch optimizer was seen: the time of the parameter update is in no latency"
_NO_FORWARD = "no forward of a model was seen"
#: The fields that each rate is computed from.
_RATES = {
    "fwd_flops_per_second": ("fwd_flops_per_rank", "fwd_latency_ns"),
    "bwd_flops_per_second": ("bwd_flops_per_rank", "bwd_latency_ns"),
    "fwd_bwd_flops_per_second": ("fwd_flops_per_rank", "fwd_latency_ns", "bwd_latency_ns"),
    "flops_per_second": ("fwd_flops_per_rank", "iter_latency_ns"),
    "samples_per_second": ("samples_per_iteration", "wall_iteration_ns"),
    "tokens_per_second": ("tokens_per_iteration", "wall_iteration_ns"),
    "samples_per_second_at_median": ("samples_per_iteration", "wall_iteration_ns"),
}


def missing_reasons(summary: Summary, analysis: Analysis) -> dict[str, str]:
    """Returns the reason by field name, for every field of the summary that is None."""
    missing = [field.name for field in fields(summary) if getattr(summary, field.name) is None]
    found = {name: _reason(name, analysis, summary) for name in missing if name not in _RATES}
    for name in missing:
        if name in _RATES:
            found[name] = next((found[part] for part in _RATES[name] if part in found), "its latency is 0")
    return found


def _reason(name: str, analysis: Analysis, summary: Summary) -> str:
    if name in PARAMETERS:
        return "no rank recorded its parameters"
    if name in _TRAINING and not analysis.trains and any(data.windows for data in analysis.ranks):
        forwards = "only forwards were recorded, each as one iteration: no optimizer had stepped by then"
        return "no backward ran while the profile was taken" if _own_profile(analysis) else forwards
    if name in _WORK:
        return why_uncounted(analysis)
    if not analysis.timed_windows:
        return why_untimed(analysis)
    return _timed_reason(name, analysis, summary)


def _timed_reason(name: str, analysis: Analysis, summary: Summary) -> str:
    """Returns the reason where there are timed steps."""
    if _saw_no_forward(analysis):
        return _NO_FORWARD
    if name == "step_latency_ns" and analysis.trains:
        return _UNSEEN_UPDATE
    if name == "tokens_per_iteration":
        return _PARTS if analysis.layout.info.sizes.get("cp", 1) > 1 else _NO_IDS
    return (summary.batch_found or _NO_TENSOR) if name in _BATCH else "no timed step recorded it"


def _own_profile(analysis: Analysis) -> Ops | None:
    """Returns the ops of a process that profiled itself, if this is one."""
    return next((window.ops for data in analysis.ranks for window in data.windows.values() if window.ops), None)


def _saw_no_forward(analysis: Analysis) -> bool:
    return any(window.saw_no_forward for window in analysis.windows.values())


def why_uncounted(analysis: Analysis) -> str:
    """Returns why no rank has a counted step."""
    if _saw_no_forward(analysis):
        return _NO_FORWARD
    planned = any(plan.counted for plan in analysis.plans)
    return "the run ended before its counted step" if planned else "counting was switched off"


def why_untimed(analysis: Analysis) -> str:
    """Returns why no rank has a timed step."""
    own = _own_profile(analysis)
    if own is not None and own.ops and not own.timed:
        return "nothing ran: the tensors were on the meta device, or fake"
    planned = any(plan.timed for plan in analysis.plans)
    return "no rank has reached a timed step" if planned else "timing was switched off"
