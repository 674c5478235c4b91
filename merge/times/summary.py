"""The Profile Summary: DeepSpeed's terms and formulas, from all ranks instead of rank 0.

Work per rank is the mean over ranks.  A latency is the median of a rank's timed steps, then the median over ranks.  A
rate divides printed work by printed latency, so that a reader can check it: fwd FLOPS = fwd flops per rank / fwd
latency.  No rate has the forward flops outside of modules, because no latency has their time.

    bwd FLOPS     = (bwd + recomputed flops) / bwd latency
    fwd+bwd FLOPS = (fwd + bwd + recomputed flops) / (fwd latency + bwd latency)
    FLOPS         = (fwd + bwd + recomputed flops) / iter latency          (iter = fwd + bwd + optimizer)
    tokens/s      = ids of all timed steps of the whole job / their wall time (throughput.py)
    samples/s     = samples of all timed steps of the whole job / their wall time (throughput.py)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import ArraySums
from distprof.merge.job.topology import JobTopology
from distprof.merge.load.window import Window
from distprof.merge.quantities import NS_PER_SECOND
from distprof.merge.report import Iterations, Spread, Summary
from distprof.merge.stats import nan_median, spread
from distprof.merge.times.phase_tables import phase_tables
from distprof.merge.times.throughput import (
    evaluations,
    per_second,
    rates_differ,
    samples_per_second,
    tokens_per_iteration,
)
from distprof.merge.work.missing_reasons import missing_reasons
from distprof.merge.work.parameter_totals import model_estimate
from distprof.merge.work.replica_check import certain_totals, find_doubts
from distprof.plain import dataclass
from distprof.rank_names import rank_names
from distprof.records import TRAINING, Array, Counts

_WORK_PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True)
class _Latencies:
    forward: Spread | None
    backward: Spread | None
    optimizer: Spread | None
    iteration: Spread | None  # DeepSpeed's: forward + backward + optimizer
    wall: Spread | None


@dataclass(frozen=True)
class _Work:
    """The work of one iteration in flops or MACs, means over the ranks.  Backward is None where nothing trains."""

    forward_by_rank: Mapping[int, float]
    forward_macs: float | None
    forward: float | None
    in_modules: float | None  # forward flops in modules
    backward_macs: float | None
    backward: float | None
    recompute: float | None

    @property
    def in_backward(self) -> float | None:
        """The flops that ran during the backward latency."""
        return None if self.backward is None else self.backward + (self.recompute or 0)

    @property
    def timed(self) -> float | None:
        """The flops that ran during all latencies."""
        return None if self.in_modules is None else self.in_modules + (self.in_backward or 0)


def _work(counted: Mapping[int, Counts], trains: bool) -> _Work:
    sums = ArraySums()

    def by_rank(pick: Callable[[Counts], Array], outside: str = "") -> dict[int, float]:
        """Returns work of one kind, in modules and outside of them."""
        return {rank: float(sums.of(pick(one))) + one.outside.get(outside, 0) for rank, one in counted.items()}

    def mean(pick: Callable[[Counts], Array], outside: str = "") -> float | None:
        return _mean(by_rank(pick, outside))

    forward = by_rank(lambda one: one.forward_flops, "forward_flops")
    return _Work(
        forward_by_rank=forward,
        forward_macs=mean(lambda one: one.forward_macs, "forward_macs"),
        forward=_mean(forward),
        in_modules=mean(lambda one: one.forward_flops),
        backward_macs=mean(lambda one: one.backward_macs, "backward_macs") if trains else None,
        backward=mean(lambda one: one.backward_flops, "backward_flops") if trains else None,
        recompute=mean(lambda one: one.recompute_flops, "recompute_flops") if trains else None,
    )


@dataclass(frozen=True)
class _Batches:
    """What the job trains on in an iteration, and how fast."""

    size_per_rank: float | None
    found: str  # how the batch size was found, or why not
    micro_batches: float | None
    samples: float | None  # of the whole job
    tokens: float | None  # of the whole job
    samples_per_second: float | None
    tokens_per_second: float | None


@computed_once
def profile_summary(analysis: Analysis) -> Summary:
    """Returns the figures of the whole job."""
    totals, layout, timed = certain_totals(analysis), analysis.layout, analysis.timed_windows
    wall, times = analysis.iterations, _latencies(analysis)
    work, batches = _work(analysis.counts, analysis.trains), _batches(analysis, wall)
    summary = Summary(
        batch_size_per_rank=batches.size_per_rank,
        batch_found=batches.found,
        micro_batches=batches.micro_batches,
        samples_per_iteration=batches.samples,
        params_per_rank=spread(totals.per_rank),
        params_of_model=model_estimate(totals.per_rank, layout),
        params_exact=totals.exact,
        trainable_params_exact=totals.trainable,
        exact_covers_all=totals.covers_all,
        fwd_macs_per_rank=work.forward_macs,
        fwd_flops_per_rank=work.forward,
        fwd_flops_of_model=model_estimate(work.forward_by_rank, layout),
        fwd_latency_ns=times.forward,
        bwd_macs_per_rank=work.backward_macs,
        bwd_flops_per_rank=work.backward,
        recompute_flops_per_rank=work.recompute,
        bwd_latency_ns=times.backward,
        step_latency_ns=times.optimizer,
        iter_latency_ns=times.iteration,
        wall_iteration_ns=times.wall,
        evaluations=evaluations(timed),
        fwd_flops_per_second=_rate(work.in_modules, times.forward),
        bwd_flops_per_second=_rate(work.in_backward, times.backward),
        fwd_bwd_flops_per_second=_rate(work.timed, times.forward, times.backward),
        flops_per_second=_rate(work.timed, times.iteration),
        iterations=wall,
        samples_per_second=batches.samples_per_second,
        samples_per_second_at_median=_rate(batches.samples, times.wall),
        uncounted_ops=_uncounted(analysis.windows),
        tokens_per_iteration=batches.tokens,
        tokens_per_second=batches.tokens_per_second,
    )
    return _explained(summary, analysis)


def _explained(summary: Summary, analysis: Analysis) -> Summary:
    """Returns the summary without figures that are in doubt, and with the reason of each that is missing."""
    in_doubt = find_doubts(analysis).no_totals
    unknown: dict[str, Any] = dict.fromkeys(in_doubt)
    summary = replace(summary, **unknown)
    return replace(
        summary,
        throughputs_differ=rates_differ(summary.samples_per_second, summary.samples_per_second_at_median),
        unavailable={**missing_reasons(summary, analysis), **in_doubt},
    )


def _batches(analysis: Analysis, wall: Iterations | None) -> _Batches:
    windows, sizes = analysis.windows, analysis.layout.info.sizes
    given = _first_stage(windows, analysis.layout)
    of_rank = _mean({rank: window.samples for rank, window in given.items()})
    tokens = tokens_per_iteration(given.values(), sizes)
    return _Batches(
        size_per_rank=_mean({rank: window.batch_size for rank, window in given.items()}),
        found=next((window.batch_found for window in given.values() if window.batch_found), ""),
        micro_batches=_mean({rank: window.micro_batches for rank, window in windows.items()}),
        samples=of_rank and of_rank * sizes["dp"],
        tokens=tokens,
        samples_per_second=samples_per_second(given.values(), sizes["dp"], wall),
        tokens_per_second=per_second(tokens, wall),
    )


def _first_stage(windows: Mapping[int, Window], layout: JobTopology) -> Mapping[int, Window]:
    """Returns the ranks of the first stage, which get batches; later stages get activations of another shape."""
    first = {rank: window for rank, window in windows.items() if layout.piece(rank, ("pp",)) == (0,)}
    return first if any(window.samples for window in first.values()) else windows


def _latencies(analysis: Analysis) -> _Latencies:
    timed = analysis.timed_windows
    trains = [rank for rank, window in timed.items() if window.mode == TRAINING]
    return _Latencies(
        forward=_phases_spread(analysis, timed, ("forward",)),
        backward=_phases_spread(analysis, trains, ("backward",)),
        optimizer=_phases_spread(analysis, trains, ("optimizer",)),
        iteration=_phases_spread(analysis, (rank for rank, w in timed.items() if not w.saw_no_forward), _WORK_PHASES),
        wall=spread({rank: window.median_ns for rank, window in timed.items() if window.median_ns is not None}),
    )


def _phases_spread(analysis: Analysis, ranks: Iterable[int], phases: Sequence[str]) -> Spread | None:
    """Returns the spread of the phases' sum; a rank that saw none of the phases has no value."""
    tables = phase_tables(analysis)
    medians = dict(zip(tables.ranks, nan_median(tables.sums(phases)).tolist(), strict=True))
    return spread({rank: median for rank in ranks if not isnan(median := medians[rank])})


def _mean(values: Mapping[int, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return sum(known) / len(known) if known else None


def _rate(work: float | None, *latencies: Spread | None) -> float | None:
    """Returns the work per second; None where the work or a latency is missing, or the latencies are 0."""
    known = [latency.median for latency in latencies if latency is not None]
    if work is None or len(known) < len(latencies) or not sum(known):
        return None
    return work / (sum(known) / NS_PER_SECOND)


def _uncounted(windows: Mapping[int, Window]) -> dict[str, int]:
    """Returns the calls of ops without a formula, over all ranks; ops that probably do the most work come first."""
    calls: Counter[str] = Counter()
    work: Counter[str] = Counter()
    for window in windows.values():
        if window.counts is not None:
            calls.update(window.counts.uncounted)
            work.update(window.counts.uncounted_work)
    return dict(sorted(calls.items(), key=lambda item: (-work[item[0]], -item[1], item[0])))


def work_notes(analysis: Analysis) -> tuple[str, ...]:
    """Returns sentences that warn where work and times are not comparable."""
    return (*_unequal_micro_batches(analysis), *_counted_while_timed(analysis))


def _counted_while_timed(analysis: Analysis) -> Iterator[str]:
    """Yields a sentence for a process that profiles itself, which counts and times the same step."""
    if any(counts.iteration in analysis.windows[rank].iterations for rank, counts in analysis.counts.items()):
        yield (
            "work and times are of the same step: counting adds some microseconds to each op, so the times are longer "
            "than those of a plain step; use them to compare modules"
        )


def _unequal_micro_batches(analysis: Analysis) -> tuple[str, ...]:
    """Returns a sentence where counted and timed steps have different numbers of micro-batches."""
    unequal = [
        rank
        for rank, window in analysis.timed_windows.items()
        if window.counts and window.micro_batches not in (None, window.counts.micro_batches)
    ]
    if not unequal:
        return ()
    return (
        f"on {rank_names(unequal)} the counted step had a different number of micro-batches than the timed steps: "
        "the FLOPS in this report divide the work of one by the time of the other",
    )
