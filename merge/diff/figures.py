"""The figures of two runs and their changes: iteration, throughput, MFU, memory, parameters, flops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from distprof.merge.diff.data import INSIDE, LESS, MORE, UNKNOWN, Figure
from distprof.merge.diff.noise import LEAST_BATCHES, Bounds, Statistic, bounds, estimate, widened
from distprof.merge.diff.samples import iteration_samples, processor_wait_share
from distprof.merge.diff.setup import trains_alike
from distprof.merge.report import Report

#: Smaller changes are called noise whatever their bounds: two starts of one program differ by as much.
SMALLEST = 0.01
#: The resident memory of equal processes differs by so much, by what their allocators kept.
RESIDENT_NOISE = 0.05
_TOO_FEW = f"fewer than {2 * LEAST_BATCHES} timed iterations"
_WAITED = 0.01
#: The names of the figures that decide whether a run is slower.
ITERATION_MEDIAN, ITERATION_MEAN, THROUGHPUT = "iteration, median", "iteration, mean", "throughput"


def figures(first: Report, second: Report) -> tuple[Figure, ...]:
    """Returns the figures that either run has."""
    return tuple(_figures(first, second))


def _figures(first: Report, second: Report) -> Iterator[Figure]:
    median, mean = (_iteration_bounds(first, second, of) for of in (np.median, np.mean))
    one, other = first.summary.iterations, second.summary.iterations
    alike, why = trains_alike(first, second), _why(first, second, mean)
    if one and other:
        times = ((ITERATION_MEDIAN, median, one.median_ns, other.median_ns),
                 (ITERATION_MEAN, mean, one.mean_ns, other.mean_ns))  # fmt: skip
        for name, found, before_ns, after_ns in times:
            yield _figure(name, "ns", before_ns, after_ns, found, MORE if alike else "", why)
    rates = (
        (THROUGHPUT, "samples/s", first.summary.samples_per_second, second.summary.samples_per_second),
        ("MFU", "share", _mfu(first), _mfu(second)),
    )
    for name, unit, a, b in rates:
        if a or b:
            yield _figure(name, unit, a, b, _inverse(mean, a, b), LESS, why)
    yield from _memory(first, second)
    counts = (
        ("parameters", first.summary.params_exact, second.summary.params_exact),
        ("forward flops per rank", first.summary.fwd_flops_per_rank, second.summary.fwd_flops_per_rank),
    )
    for name, number, number_b in counts:
        if number or number_b:
            yield _figure(name, "count", number, number_b, _exact(number, number_b), "", "")


def _iteration_bounds(first: Report, second: Report, of: Callable[[np.ndarray], float]) -> Bounds | None:
    statistic: Statistic = lambda samples: float(of(samples))  # noqa: E731
    found = [estimate(iteration_samples(report), statistic) for report in (first, second)]
    if found[0] is None or found[1] is None:
        return None
    return widened(bounds(found[0], found[1]), *(processor_wait_share(report) or 0.0 for report in (first, second)))


def _why(first: Report, second: Report, found: Bounds | None) -> str:
    """Returns why bounds are missing, or wide."""
    if found is None:
        return _TOO_FEW
    waited = [processor_wait_share(report) for report in (first, second)]
    if None in waited:
        return "waits for processors are not known: other jobs on the machine are not in the bounds"
    if max(share or 0.0 for share in waited) < _WAITED:
        return ""
    shares = " and ".join(f"{share or 0.0:.0%}" for share in waited)
    return f"threads waited for processors in {shares} of the time: the bounds include it"


def _mfu(report: Report) -> float | None:
    return report.utilization.mfu.job if report.utilization.mfu else None


def _inverse(times: Bounds | None, first: float | None, second: float | None) -> Bounds | None:
    """Returns the bounds of a rate from those of the times under it."""
    if times is None or not first or not second:
        return None
    change, time = second / first, 1 + times.change
    return Bounds(change - 1, change * time / (1 + times.high) - 1, change * time / (1 + times.low) - 1)


def _memory(first: Report, second: Report) -> Iterator[Figure]:
    most = [max((row.peak_memory_bytes or 0 for row in report.ranks), default=0) for report in (first, second)]
    if not any(most):
        return
    resident = any(row.memory_source == "rss" for report in (first, second) for row in report.ranks)
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
