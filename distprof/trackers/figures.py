"""What a tracker gets of a report: figures of the run, figures of its timed iterations, its set-up, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from distprof.merge import plots
from distprof.merge.report import Report

_MS = 1e6


@dataclass(frozen=True)
class Figures:
    """Names are paths, such as ``iteration/median_ms``; units are at their ends."""

    name: str  # of the run
    step: int  # the last timed iteration, 0 where none was timed
    scalars: dict[str, float]
    iterations: dict[int, float]  # iteration -> its wall time in ms, the median over the ranks
    setup: dict[str, str]
    pictures: dict[str, bytes]  # name -> PNG
    text: str  # the first page


def figures_of(report: Report, text: str, *, pictures: bool = True) -> Figures:
    """Returns what there is; what was not measured is left out.  ``text`` is the first page."""
    iterations = dict(_iterations(report))
    return Figures(
        name=report.run.name,
        step=max(iterations, default=0),
        scalars={name: float(value) for name, value in _scalars(report) if value is not None},
        iterations=iterations,
        setup=_setup(report),
        pictures=dict(_pictures(report)) if pictures else {},
        text=text,
    )


def _scalars(report: Report) -> Iterator[tuple[str, float | None]]:
    summary, times = report.summary, report.summary.iterations
    if times is not None:
        yield "iteration/median_ms", times.median_ns / _MS
        yield "iteration/mean_ms", times.mean_ns / _MS
        yield "iteration/p95_ms", times.p95_ns / _MS
        yield "iteration/long_steps", len(times.long)
    for phase in report.time.phases:
        yield f"phase/{phase.phase}_ms", phase.median_ns / _MS
        yield f"wait/{phase.phase}_ms", None if phase.wait_ns is None else phase.wait_ns / _MS
    yield "throughput/samples_per_second", summary.samples_per_second
    yield "throughput/tokens_per_second", summary.tokens_per_second
    for name, used in (("mfu", report.utilization.mfu), ("hfu", report.utilization.hfu)):
        yield f"utilization/{name}", None if used is None else used.job
    yield "model/params", summary.params_exact
    yield "model/fwd_flops_per_rank", summary.fwd_flops_per_rank
    peaks = [row.peak_memory_bytes for row in report.ranks if row.peak_memory_bytes]
    yield "memory/largest_peak_bytes", max(peaks, default=None)
    yield "experts/largest_max_over_mean", report.verdict.expert.max_over_mean
    yield "verdict/slow_ranks", len(report.verdict.ranks.named)
    cost = report.verdict.ranks.cost_ns
    yield "verdict/cost_ms", None if cost is None else cost / _MS
    yield "run/recorded_ranks", len(report.run.ranks) - len(report.run.without_data)


def _iterations(report: Report) -> Iterator[tuple[int, float]]:
    """Yields each timed iteration with its wall time in ms."""
    durations: dict[int, list[int]] = {}
    for row in report.ranks:
        for iteration, duration in zip(row.step_iterations, row.step_durations_ns, strict=True):
            durations.setdefault(iteration, []).append(duration)
    for iteration in sorted(durations):
        yield iteration, median(durations[iteration]) / _MS


def _setup(report: Report) -> dict[str, str]:
    run = report.run
    sizes = {f"{axis}_size": str(size) for axis, size in report.topology.sizes.items()}
    return {
        "script": run.script,
        "world_size": str(run.world_size),
        **sizes,
        "hosts": str(len(run.hosts)),
        "device": run.device_name or run.device,
        "torch": run.torch,
    }


def _pictures(report: Report) -> Iterator[tuple[str, bytes]]:
    for name in plots.NAMES:
        for file, content in plots.draw(name, report).items():
            if file.endswith(".png"):
                yield name, content
