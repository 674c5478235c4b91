"""Ranks that stand out because they wait for a processor: their host has too few, and they are not slow by themselves.

How long a rank was ready to run while no processor was free is known for each iteration, but not in which module: it is
divided over all places by their own times.  What a rank waited longer than the others is taken from its excess, and the
rest must be that of a slow rank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.collectives.own_times import waits_unseen, why_no_own_times
from distprof.merge.quantities import duration
from distprof.merge.report import BUSY_PROCESSORS, Cause
from distprof.merge.skew.excess import CohortExcess, cohort_excess
from distprof.merge.skew.step_times import MODULE, WHOLE, StepTimes
from distprof.merge.skew.stragglers import Outlier, is_large, outliers
from distprof.merge.stats import middle, nan_median
from distprof.merge.wording import join_words
from distprof.rank_names import rank_names


def longer_wait_ns(analysis: Analysis, rank: int, slow: Collection[int]) -> float:
    """Returns how much longer a rank waits for a processor than those of its cohort that are not ``slow``, in an
    iteration, and than all others where each of them is; 0 where that was not seen.
    """
    cohort = [one for one in analysis.timed_windows if analysis.cohorts[one] == analysis.cohorts[rank] and one != rank]
    others = [one for one in cohort if one not in slow] or cohort
    waits = [processor_wait_ns(analysis, other) for other in others]
    longer = processor_wait_ns(analysis, rank) - float(middle(waits)) if waits else np.nan
    return 0.0 if np.isnan(longer) else longer


def processor_wait_ns(analysis: Analysis, rank: int) -> float:
    """Returns how long a rank waits for a processor in an iteration, the median; NaN where that was not seen."""
    waits = analysis.timed_windows[rank].processor_waits_ns
    return float(middle(waits)) if len(waits) else np.nan


def slow_behind_waits(analysis: Analysis, cohorts: Sequence[CohortExcess], iteration_ns: float) -> Iterator[Outlier]:
    """Yields the ranks that stand out in the whole iteration without what each rank waits for a processor in it.

    On a busy host these waits are longer than what a slow rank loses, and differ from step to step.  Nobody is found
    where own times are not known: a rank that waits for others is not ready to run, and seems to compute instead.
    """
    if why_no_own_times(analysis) or waits_unseen(analysis):
        return
    for excess in cohorts:
        waits_ns = np.stack([waits_by_step(analysis, rank, excess.times) for rank in excess.times.ranks])
        row = _whole(excess.times)
        own_ns = np.maximum(excess.times.times[row] - waits_ns, 0)
        if not np.isnan(own_ns).all():
            places, times = (excess.times.places[row],), own_ns[None]
            found = outliers(cohort_excess(replace(excess.times, places=places, times=times)), iteration_ns)
            yield from (replace(one, without_processor_waits=True) for one in found)


def waits_by_step(analysis: Analysis, rank: int, times: StepTimes) -> FloatArray:
    """Returns how long a rank waits for a processor in each of the steps; NaN where that was not seen."""
    window, waits_ns = analysis.timed_windows[rank], np.full(times.steps, np.nan)
    if len(window.processor_waits_ns) == window.steps:
        waits_ns[np.searchsorted(times.iterations, window.iterations)] = window.processor_waits_ns
    return waits_ns


def only_waiting(
    analysis: Analysis, named: Sequence[Outlier], cohorts: Sequence[CohortExcess], iteration_ns: float
) -> list[Outlier]:
    """Returns those of the ranks that stand out whose excess is too small without what they waited longer there."""
    slow = {one.rank for one in named}
    return [
        one
        for one in named
        if not is_large(one.excess_ns - _longer_wait_there_ns(analysis, one, slow, cohorts), one, iteration_ns)
    ]


def with_waits_apart(
    analysis: Analysis, named: Sequence[Outlier], cohorts: Sequence[CohortExcess], iteration_ns: float
) -> list[Outlier]:
    """Returns the named ranks, the largest excess first, with what they wait longer for a processor apart from what
    they lose.

    In which module a rank waits is not known: what it loses in one stays as it is, and may hold a part of its waits.
    """
    slow, found = {one.rank for one in named}, []
    for one in named:
        wait_ns = _longer_wait_there_ns(analysis, one, slow, cohorts)
        own_ns = one.excess_ns - wait_ns if one.place.level > MODULE else one.excess_ns
        apart = is_large(wait_ns, one, iteration_ns)
        found.append(replace(one, excess_ns=own_ns, processor_wait_ns=wait_ns) if apart else one)
    return sorted(found, key=lambda one: (-one.excess_ns, one.rank))


def may_be_waits(analysis: Analysis, one: Outlier, named: Sequence[Outlier]) -> bool:
    """Whether all that a rank loses in its place may be what it waits longer for a processor in the whole iteration:
    it may wait in one place, where its process is woken, more than in others.
    """
    return not one.processor_wait_ns and one.excess_ns <= longer_wait_ns(analysis, one.rank, {it.rank for it in named})


def _longer_wait_there_ns(
    analysis: Analysis, one: Outlier, slow: Collection[int], cohorts: Sequence[CohortExcess]
) -> float:
    """Returns what a rank waits longer for a processor in its place: as much of all as it is of its own time."""
    own = next(excess.times for excess in cohorts if one.rank in excess.times.ranks)
    column = own.ranks.index(one.rank)
    whole_ns = float(nan_median(own.times[_whole(own), column]))
    share = min((one.cohort_ns + one.excess_ns) / max(whole_ns, 1.0), 1.0)
    return share * max(longer_wait_ns(analysis, one.rank, slow), 0.0)


def _whole(times: StepTimes) -> int:
    return next(number for number, place in enumerate(times.places) if place.level == WHOLE)


def busy_processors(analysis: Analysis, waiting: Sequence[Outlier]) -> Cause:
    """Returns as a cause that the hosts of these ranks, which only wait, have too few processors."""
    host_of = {data.rank: data.header.host for data in analysis.ranks}
    hosts = dict.fromkeys(host_of[one.rank] for one in waiting)
    every = [_of_host(analysis, [rank for rank in analysis.timed_windows if host_of[rank] == host]) for host in hosts]
    ranks = {one.rank for one in waiting}
    waits, own = ("waits", "its") if len(ranks) == 1 else ("wait", "their")
    longest = max(longer_wait_ns(analysis, rank, ranks) for rank in ranks)
    words = (
        f"{join_words([f'on host {host} {words}' for host, words in zip(hosts, every, strict=True)])}; "
        f"{rank_names(ranks)} {waits} {duration(longest)} longer than the others, so an excess of "
        f"{duration(max(one.excess_ns for one in waiting))} is not {own} own"
    )
    return Cause(BUSY_PROCESSORS, words, tuple(sorted(ranks)))


def _of_host(analysis: Analysis, ranks: Sequence[int]) -> str:
    wait_ns = float(np.nanmedian([processor_wait_ns(analysis, rank) for rank in ranks]))
    of_ranks = f" (the median of {len(ranks)} ranks)" if len(ranks) > 1 else ""
    return f"a rank is ready to run while no processor is free for {duration(wait_ns)} of an iteration{of_ranks}"
