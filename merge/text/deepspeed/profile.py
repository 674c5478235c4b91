"""The Profile Summary: the lines of DeepSpeed's profiler under its names, with additional lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distprof.merge.quantities import (
    NOT_AVAILABLE,
    duration,
    duration_spread,
    flops_per_second,
    macs,
    parameters,
    parameters_spread,
    plain,
    quantity,
)
from distprof.merge.report import CompiledRegion, Report, Summary
from distprof.merge.text.deepspeed.model import EXACT, params_lines, work_lines
from distprof.merge.text.deepspeed.utilization import missing_labels, utilization_lines
from distprof.merge.text.format.lines import labelled_line, one_line, wrapped
from distprof.merge.wording import pluralise
from distprof.plain import dataclass
from distprof.rank_names import number_spans

_NOTATIONS = (
    "Notations:",
    "data parallel size (dp_size), model parallel size (mp_size),",
    "number of parameters (params), number of multiply-accumulate operations (MACs),",
    "number of floating-point operations (flops), floating-point operations per second (FLOPS),",
    "fwd latency (forward propagation latency), bwd latency (backward propagation latency),",
    "step (weights update latency), iter latency (sum of fwd, bwd and step latency)",
)
_OURS = (
    "Params, MACs and flops are means over the ranks.  A latency is the median of a rank's timed steps, then the median"
    " of the ranks [least .. largest].  All figures are for one iteration with all its micro-batches.  Recomputed flops"
    " are those that activation checkpointing runs again; all flops = fwd + bwd + recomputed.  fwd latency is the time"
    " in modules: time between modules, or between modules and backward, is in the wall iteration only, and the flops"
    " that run in it are in no FLOPS."
)
_OPS_SHOWN = 12
_DIFFERS = 0.005  # of the sum of medians from the median of sums
_SAMPLES = "samples/second"
_TOKENS = "tokens/second (ids that the model is given, padding included)"


@dataclass(frozen=True)
class _Line:
    """One line of the summary: its field, its label (``{unit}``: GPU or rank), and its format."""

    field: str
    label: str
    text: Callable[[Any], str]


_BATCH = _Line("batch_size_per_rank", "batch size per {unit}", plain)
_MICRO_BATCHES = _Line("micro_batches", "micro-batches per iteration", plain)
_PARAMS = (
    _Line("params_per_rank", "params per {unit}", parameters_spread),
    _Line("params_of_model", "params of model = params per {unit} * mp_size", parameters),
)
_RECOMPUTED = "recompute_flops_per_rank"
_WORK = (
    _Line("fwd_macs_per_rank", "fwd MACs per {unit}", macs),
    _Line("fwd_flops_per_rank", "fwd flops per {unit}", quantity),
    _Line("fwd_flops_of_model", "fwd flops of model = fwd flops per {unit} * mp_size", quantity),
)
_TIME = (
    _Line("fwd_latency_ns", "fwd latency", duration_spread),
    _Line("fwd_flops_per_second", "fwd FLOPS per {unit} = fwd flops per {unit} / fwd latency", flops_per_second),
    _Line("bwd_macs_per_rank", "bwd MACs per {unit}", macs),
    _Line("bwd_flops_per_rank", "bwd flops per {unit}", quantity),
    _Line(_RECOMPUTED, "recomputed flops per {unit}", quantity),
    _Line("bwd_latency_ns", "bwd latency", duration_spread),
    _Line(
        "bwd_flops_per_second",
        "bwd FLOPS per {unit} = (bwd + recomputed) flops per {unit} / bwd latency",
        flops_per_second,
    ),
    _Line(
        "fwd_bwd_flops_per_second",
        "fwd+bwd FLOPS per {unit} = all flops per {unit} / (fwd+bwd latency)",
        flops_per_second,
    ),
    _Line("step_latency_ns", "step latency", duration_spread),
    _Line("iter_latency_ns", "iter latency", duration_spread),
    _Line("wall_iteration_ns", "wall iteration (iter latency, data wait and all else)", duration_spread),
    _Line("flops_per_second", "FLOPS per {unit} = all flops per {unit} / iter latency", flops_per_second),
)


def profile_summary(report: Report) -> Iterator[str]:
    """Yields the lines of the block."""
    summary, unit = report.summary, report.run.unit
    steps = {step for row in report.ranks for step in row.step_iterations}
    yield f"Profile Summary at step {number_spans(steps) or NOT_AVAILABLE}:"
    yield from _NOTATIONS
    yield from wrapped(_OURS)
    yield ""
    yield labelled_line("world size", report.run.world_size)
    yield labelled_line("data parallel size", report.topology.sizes["dp"])
    yield labelled_line("model parallel size", report.topology.sizes["mp"])
    accumulates = summary.micro_batches not in (None, 1)
    yield from _written(summary, unit, (_BATCH, _MICRO_BATCHES) if accumulates else (_BATCH,))
    if summary.batch_found and summary.batch_size_per_rank is not None:
        yield from wrapped(summary.batch_found, "batch size is ", "  ")
    yield from _written(summary, unit, _PARAMS)
    yield from params_lines(report)
    yield from _written(summary, unit, _WORK)
    yield from work_lines(report)
    for line in _TIME:
        yield from _written(summary, unit, (line,))
        if line.field == "iter_latency_ns":
            yield from _sum_of_parts(summary)
    yield from _whole_window(summary)
    if (seen := summary.evaluations).time_ns is not None:
        label = f"evaluation, in {seen.steps} of {seen.timed_steps} steps (in samples/second)"
        yield labelled_line(label, duration_spread(seen.time_ns))
    yield from utilization_lines(report)
    yield from _uncounted(summary)
    for region in report.generated:
        yield from _generated(region)
    yield from _unavailable(report)


def _written(summary: Summary, unit: str, lines: tuple[_Line, ...]) -> Iterator[str]:
    for line in lines:
        if line.field == _RECOMPUTED and getattr(summary, line.field) == 0:
            continue  # most jobs checkpoint nothing
        yield labelled_line(line.label.format(unit=unit), line.text(getattr(summary, line.field)))


def _sum_of_parts(summary: Summary) -> Iterator[str]:
    """Yields a line where the median of the sum differs from the sum of the medians, which are printed above it."""
    whole, parts = summary.iter_latency_ns, (summary.fwd_latency_ns, summary.bwd_latency_ns, summary.step_latency_ns)
    total = sum(part.median for part in parts if part is not None)
    if whole is not None and abs(total - whole.median) > _DIFFERS * whole.median:
        why = "each is a median of its own, of its own step and rank"
        yield labelled_line("  fwd, bwd and step latency above, added up", f"{duration(total)}  ({why})")


def _whole_window(summary: Summary) -> Iterator[str]:
    """Yields the figures of all timed steps together, beside those of the median iteration."""
    if (found := summary.iterations) is not None and found.steps > 1:
        figures = f"{duration(found.mean_ns)}  (p95 {duration(found.p95_ns)}, max {duration(found.max_ns)})"
        yield labelled_line(f"wall iteration, mean of {pluralise(found.steps, 'timed step')}", figures)
    rate, median = plain(summary.samples_per_second), plain(summary.samples_per_second_at_median)
    yield labelled_line(_SAMPLES, f"{rate}  ({median} at the median iteration)" if median != rate else rate)
    if summary.tokens_per_second is not None:
        yield labelled_line(_TOKENS, plain(summary.tokens_per_second))


def _uncounted(summary: Summary) -> Iterator[str]:
    if summary.uncounted_ops:
        yield from wrapped(_calls(summary.uncounted_ops.items()), "not counted: ", "  ")


def _generated(region: CompiledRegion) -> Iterator[str]:
    """Yields the kernels of one region, those with most calls first; kernels of attention are listed once more."""
    where = one_line(region.module) or "a function of the script"
    kernels = sorted(region.kernels.items(), key=lambda item: (-item[1], item[0]))
    yield from wrapped(_calls(kernels), f"not counted, kernels generated by the compiler in {where}: ", "  ")
    attention = [(name, calls) for name, calls in kernels if name in region.attention]
    if attention:
        what = f"{_calls(attention)} in {where}; --count-eager counts them"
        yield from wrapped(what, "not counted, generated kernels of attention: ", "  ")


def _calls(counted: Iterable[tuple[str, int]]) -> str:
    """Returns names with their calls."""
    calls = list(counted)
    names = [f"{one_line(name)} x {count}" for name, count in calls[:_OPS_SHOWN]]
    more = [f"{len(calls) - _OPS_SHOWN} more in summary.json"] if len(calls) > _OPS_SHOWN else []
    return ", ".join([*names, *more])


def _unavailable(report: Report) -> Iterator[str]:
    """Yields each reason once, with the names of the lines that have no value for this reason."""
    summary, unit = report.summary, report.run.unit
    lines = (_BATCH, *_PARAMS, *_WORK, *_TIME)
    labels = {line.field: line.label.partition(" =")[0].partition(" (")[0] for line in lines}
    labels["params_exact"] = EXACT
    labels["samples_per_second"] = _SAMPLES
    without_value: dict[str, list[str]] = defaultdict(list)
    for field, reason in summary.unavailable.items():
        if field in labels:
            without_value[reason].append(labels[field].format(unit=unit))
    if missing := missing_labels(report):
        without_value[report.utilization.unavailable] += missing
    for reason, names in without_value.items():
        yield from wrapped(f"{', '.join(names)}: {reason}", "n/a: ", "  ")
        if reason == report.utilization.unavailable and report.utilization.to_do:
            yield from wrapped(report.utilization.to_do, "  ", "  ")
