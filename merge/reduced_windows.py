"""The old windows of a run with windows that come back: each is reduced to a summary of a few sums on each rank.

The iterations of synchronised ranks take equally long, and phases but data hold waits for others, whose records are
gone.  So a rank is called slow by its waits for data, or where its whole iterations take longer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import mean, median

from distprof.merge.analysis import Analysis
from distprof.merge.report import ReducedWindow, SlowInWindow
from distprof.merge.skew.thresholds import MARGIN, MIN_COHORT, SLOW_SHARE
from distprof.merge.work.utilization import compute_utilizations
from distprof.records import WindowSummary

_DATA = "data"
_Summaries = Mapping[int, WindowSummary]  # by rank


def reduced_windows(analysis: Analysis) -> tuple[ReducedWindow, ...]:
    """Returns what is left of each window in the order of their numbers."""
    by_window: dict[int, dict[int, WindowSummary]] = defaultdict(dict)
    for data in analysis.ranks:
        for one in data.reduced:
            if one.mode == analysis.mode and one.iterations:
                by_window[one.window][data.rank] = one
    return tuple(_window(analysis, number, by_window[number]) for number in sorted(by_window))


def _window(analysis: Analysis, number: int, summaries: _Summaries) -> ReducedWindow:
    medians = [one.median_ns for one in summaries.values() if one.median_ns]
    return ReducedWindow(
        number=number,
        first_iteration=min(one.start for one in summaries.values()),
        ranks=len(summaries),
        iteration_ns=float(median(medians)) if medians else None,
        longest_ns=float(max(one.longest_ns for one in summaries.values())),
        mfu=_mfu(analysis, summaries),
        slow=tuple(sorted(_slow(analysis, summaries), key=lambda one: -one.excess_ns)),
    )


def _mfu(analysis: Analysis, summaries: _Summaries) -> float | None:
    """Returns the MFU as that of the report is defined: mean over the ranks of the seconds that the work takes at the
    peak, over the median of their mean iterations.  A summary has the MACs, but not their number formats: these are
    those of the report's window.
    """
    by_rank = compute_utilizations(analysis).by_rank
    ideal_ns = []
    for rank, one in summaries.items():
        counts, window = analysis.counts.get(rank), analysis.timed_windows.get(rank)
        macs = sum(row.model_macs for row in counts.device_work) if counts is not None else 0
        if rank in by_rank and window is not None and macs and one.macs:
            ideal_ns.append(by_rank[rank][0] * float(window.durations_ns.mean()) * one.macs / macs)
    if not ideal_ns:
        return None
    return mean(ideal_ns) / median(_mean_ns(one, one.duration_ns) for one in summaries.values())


def _slow(analysis: Analysis, summaries: _Summaries) -> Iterator[SlowInWindow]:
    """Yields of each cohort the rank that is slow by its whole iterations, or else by its waits for data."""
    cohorts: dict[int, list[int]] = defaultdict(list)
    for rank in summaries:
        cohorts[analysis.cohorts[rank]].append(rank)
    for ranks in cohorts.values():
        whole = {rank: _mean_ns(summaries[rank], summaries[rank].duration_ns) for rank in ranks}
        data = {rank: _mean_ns(summaries[rank], summaries[rank].phases_ns.get(_DATA, 0)) for rank in ranks}
        least_ns = SLOW_SHARE * median(whole.values())
        found = _outlier(whole, "", least_ns) or _outlier(data, _DATA, least_ns)
        if found is not None:
            yield found


def _outlier(times_ns: Mapping[int, float], phase: str, least_ns: float) -> SlowInWindow | None:
    """Returns the rank that is above the others by ``least_ns``, and by more than the next one is."""
    if len(times_ns) < MIN_COHORT:
        return None
    rank, after, *_ = sorted(times_ns, key=lambda rank: -times_ns[rank])
    usual_ns = median(time for other, time in times_ns.items() if other != rank)
    excess_ns, next_ns = times_ns[rank] - usual_ns, times_ns[after] - usual_ns
    return SlowInWindow(rank, phase, excess_ns) if excess_ns >= max(least_ns, MARGIN * next_ns) else None


def _mean_ns(one: WindowSummary, sum_ns: int) -> float:
    return sum_ns / one.iterations
