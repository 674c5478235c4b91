"""The figures of two runs and their changes: iteration, throughput, MFU, memory, parameters, flops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import geometric_mean

import numpy as np

from distprof.merge.diff.data import INSIDE, LESS, MORE, UNKNOWN, Figure
from distprof.merge.diff.noise import (
    LEAST_BATCHES,
    Bounds,
    Estimate,
    Statistic,
    bounds,
    estimate,
    of_repeated,
    widened,
)
from distprof.merge.diff.samples import Side, are_repeated, iteration_samples, processor_wait_share
from distprof.merge.diff.setup import trains_alike
from distprof.merge.report import Report

#: Smaller changes are called noise whatever their bounds: two starts of one program differ by as much.
SMALLEST = 0.01
#: The resident memory of equal processes differs by so much, by what their allocators kept.
RESIDENT_NOISE = 0.05
_TOO_FEW = f"fewer than {2 * LEAST_BATCHES} timed iterations"
_WAITED = 0.01
#: The median and the mean iteration: their bounds hold together.
_ITERATION_FIGURES = 2
#: The names of the figures that decide whether a run is slower.
ITERATION_MEDIAN, ITERATION_MEAN, THROUGHPUT = "iteration, median", "iteration, mean", "throughput"


def figures(first: Side, second: Side) -> tuple[Figure, ...]:
    """Returns the figures that either run has; of repeated runs, their geometric means."""
    return tuple(_figures(first, second))


def _figures(first: Side, second: Side) -> Iterator[Figure]:
    median, mean = (_iteration_bounds(first, second, of) for of in (np.median, np.mean))
    alike, why = trains_alike(first.report, second.report), _why(first, second, mean)
    for name, found, value in ((ITERATION_MEDIAN, median, _median_ns), (ITERATION_MEAN, mean, _mean_ns)):
        before_ns, after_ns = _over_runs(value, first), _over_runs(value, second)
        if before_ns and after_ns:
            yield _figure(name, "ns", before_ns, after_ns, found, MORE if alike else "", why)
    for name, unit, value in ((THROUGHPUT, "samples/s", _samples_per_second), ("MFU", "share", _mfu)):
        before, after = _over_runs(value, first), _over_runs(value, second)
        if before or after:
            yield _figure(name, unit, before, after, _inverse(mean, before, after), LESS, why)
    yield from _memory(first, second)
    one, other = first.report.summary, second.report.summary
    counts = (
        ("parameters", one.params_exact, other.params_exact),
        ("forward flops per rank", one.fwd_flops_per_rank, other.fwd_flops_per_rank),
    )
    for name, number, number_b in counts:
        if number or number_b:
            yield _figure(name, "count", number, number_b, _exact(number, number_b), "", "")


def _median_ns(report: Report) -> float | None:
    return report.summary.iterations.median_ns if report.summary.iterations else None


def _mean_ns(report: Report) -> float | None:
    return report.summary.iterations.mean_ns if report.summary.iterations else None


def _samples_per_second(report: Report) -> float | None:
    return report.summary.samples_per_second


def _mfu(report: Report) -> float | None:
    return report.utilization.mfu.job if report.utilization.mfu else None


def _over_runs(value: Callable[[Report], float | None], side: Side) -> float | None:
    """Returns the geometric mean over the runs of a side; None where one of them has no such figure."""
    known = [found for found in map(value, side.reports) if found]
    return geometric_mean(known) if len(known) == len(side.runs) else None


def _iteration_bounds(first: Side, second: Side, of: Callable[[np.ndarray], float]) -> Bounds | None:
    statistic: Statistic = lambda samples: float(of(samples))  # noqa: E731
    estimates = [
        of_repeated([estimate(iteration_samples(report), statistic) for report in side.reports])
        for side in (first, second)
    ]
    return bounds_of_times(estimates, first, second, comparisons=_ITERATION_FIGURES)


def bounds_of_times(
    estimates: Sequence[Estimate | None], first: Side, second: Side, *, comparisons: int = 1
) -> Bounds | None:
    """Returns the bounds of a change of time from the estimates of both sides, None where one is not known.

    Where the runs were not repeated, they are widened by the waits for processors.
    """
    one, other = estimates
    if one is None or other is None:
        return None
    found = bounds(one, other, comparisons=comparisons)
    if are_repeated(first, second):
        return found
    return widened(found, *(processor_wait_share(side) or 0.0 for side in (first, second)))


def _why(first: Side, second: Side, found: Bounds | None) -> str:
    """Returns why bounds are missing, or wide."""
    if found is None:
        return _TOO_FEW
    if are_repeated(first, second):
        return f"the bounds are those of the spread over {len(first.runs)} runs of each"
    waited = [processor_wait_share(side) for side in (first, second)]
    if None in waited:
        return "waits for processors are not known: other jobs on the machine are not in the bounds"
    if max(share or 0.0 for share in waited) < _WAITED:
        return ""
    shares = " and ".join(f"{share or 0.0:.0%}" for share in waited)
    return f"threads waited for processors in {shares} of the time: the bounds include it"


def _inverse(times: Bounds | None, first: float | None, second: float | None) -> Bounds | None:
    """Returns the bounds of a rate from those of the times under it."""
    if times is None or not first or not second:
        return None
    change, time = second / first, 1 + times.change
    return Bounds(change - 1, change * time / (1 + times.high) - 1, change * time / (1 + times.low) - 1)


def _memory(first: Side, second: Side) -> Iterator[Figure]:
    rows = [[row for report in side.reports for row in report.ranks] for side in (first, second)]
    most = [max((row.peak_memory_bytes or 0 for row in own), default=0) for own in rows]
    if not any(most):
        return
    resident = any(row.memory_source == "rss" for own in rows for row in own)
    exact = _exact(*most)
    noise = RESIDENT_NOISE if resident else 0.0
    found = exact and Bounds(exact.change, exact.change - noise, exact.change + noise)
    why = f"resident memory: {RESIDENT_NOISE:.0%} are taken for noise" if resident else ""
    yield _figure("largest memory", "bytes", most[0] or None, most[1] or None, found, MORE, why)


def _exact(first: float | None, second: float | None) -> Bounds | None:
    if not first or not second:
        return None
    return Bounds(second / first - 1, second / first - 1, second / first - 1)


def _figure(
    name: str, unit: str, first: float | None, second: float | None, found: Bounds | None, worse: str, why: str
) -> Figure:
    """``worse``: the finding that is worse, empty where neither is."""
    kind = finding(found)
    change = second / first - 1 if first and second else None
    low, high = (found.low, found.high) if found else (None, None)
    is_worse = kind == worse
    is_better = bool(worse) and kind in (MORE, LESS) and not is_worse
    return Figure(name, unit, first, second, change, low, high, kind, is_worse, is_better, why)


def finding(found: Bounds | None, least: float = SMALLEST) -> str:
    """Returns what the bounds say."""
    if found is None:
        return UNKNOWN
    if not found.excludes_zero or abs(found.change) < least:
        return INSIDE
    return MORE if found.low > 0 else LESS
