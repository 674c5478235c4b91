"""What two runs were started with, where it differs, and whether their times can be compared at all."""

from __future__ import annotations

from collections.abc import Iterator

from distprof.merge.diff.data import SetupDifference
from distprof.merge.report import Report

#: With a smaller share of common modules, the models are different ones.
_LEAST_COMMON = 0.5
_OTHER_WORK = "an iteration trains other amounts: compare the throughput"
_OTHER_PLACE = "times are those of other machines"
#: What the repetitions of a run have in common.
_OF_REPETITIONS = (
    "ranks",
    "topology",
    "batch per rank",
    "micro-batches",
    "samples per iteration",
    "iterations",
    "device",
    "torch",
)


def setup_differences(first: Report, second: Report) -> tuple[SetupDifference, ...]:
    """Returns the differences, in the order of the report's first block."""
    pairs = zip(_setup(first), _setup(second), strict=True)
    return tuple(
        SetupDifference(what, one, other, effect) for (what, one, effect), (_, other, _) in pairs if one != other
    )


def _setup(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yields (what, its value in words, what a difference means)."""
    run, summary = report.run, report.summary
    sizes = ", ".join(f"{axis} {size}" for axis, size in report.topology.sizes.items() if size > 1 and axis != "mp")
    yield "ranks", str(run.world_size), _OTHER_WORK
    yield "recorded ranks", str(len(run.ranks) - len(run.without_data)), "figures are of other ranks"
    yield "topology", sizes or "one replica", "ranks have other parts of the model or of the batch"
    yield "batch per rank", _plain(summary.batch_size_per_rank), _OTHER_WORK
    yield "micro-batches", _plain(summary.micro_batches), _OTHER_WORK
    yield "samples per iteration", _plain(summary.samples_per_iteration), _OTHER_WORK
    yield "iterations", run.mode, ""
    yield "device", f"{run.device} {run.device_name}".strip(), _OTHER_PLACE
    yield "hosts", ", ".join(run.hosts), _OTHER_PLACE
    yield "torch", run.torch, ""
    yield "script", run.script.rpartition("/")[2], ""
    yield "recorded by schema", report.schema, ""


def why_no_repetition(run: Report, other: Report) -> str:
    """Returns why ``other`` is no further run of the same, or an empty text."""
    for one in setup_differences(run, other):
        if one.what in _OF_REPETITIONS:
            return f"{one.what} differs, {one.second} instead of {one.first}"
    return why_not_comparable(run, other)


def why_not_comparable(first: Report, second: Report) -> str:
    """Returns why times of the runs cannot be compared, or an empty text."""
    if first.run.mode != second.run.mode:
        return f"an iteration is {first.run.mode} in the first run and {second.run.mode} in the second"
    for name, report in (("first", first), ("second", second)):
        if not any(row.step_durations_ns for row in report.ranks):
            return f"the {name} run has no timed iteration"
    own, others = ({(row.name, row.class_name) for row in report.modules} for report in (first, second))
    either, both = len(own | others), len(own & others)
    if either and both < _LEAST_COMMON * either:
        return f"the models are different: {both} of {either} modules are in both runs"
    return ""


def trains_alike(first: Report, second: Report) -> bool:
    """Returns whether an iteration of both runs trains the same number of samples on as many ranks, as far as known."""
    return (first.run.world_size, first.summary.samples_per_iteration) == (
        second.run.world_size,
        second.summary.samples_per_iteration,
    )


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"
