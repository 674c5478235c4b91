"""Why a rank is slow, as far as the records tell, and what is slow instead of a rank: a stage, or a moment.

The first cause that fits is given.  Nothing is concluded from the absence of a cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.experts.load import expert_layers
from distprof.merge.job.rank_groups import HOST
from distprof.merge.quantities import duration, ratio
from distprof.merge.report import (
    DATA_LOADING,
    EXPERT_OVERLOAD,
    LONG_STAGE,
    MORE_WORK,
    OPTIMIZER,
    PAUSES,
    SLOW_DEVICE,
    SLOW_HOST,
    THROUGHOUT,
    Cause,
)
from distprof.merge.skew.cohort_excess import CohortExcess
from distprof.merge.skew.slow_groups import GroupOutlier, ranks_of
from distprof.merge.skew.step_times import FINE, Place
from distprof.merge.skew.stragglers import Outlier
from distprof.merge.skew.thresholds import (
    LONG_STAGE_RATIO,
    MARGIN,
    MORE_TOKENS,
    MORE_WORK_RATIO,
    PAUSE_NS,
    PAUSE_SHARE,
    PERSISTENT,
    PLACE_SHARE,
    SLOW_SHARE,
)
from distprof.merge.wording import join_words, place_name, rank_names


def cause_of(analysis: Analysis, named: Sequence[Outlier], groups: Sequence[GroupOutlier] = ()) -> Cause:
    """Returns why the named ranks are slow, of which those of ``groups`` are slow as wholes."""
    by_place = _by_place(named)
    known = _more_work(analysis, named) or _overload(analysis, named) or _pauses(analysis, named)
    if known is None and by_place.name in (SLOW_DEVICE, ""):
        known = _slow_host(named, groups)
    ranks = tuple(sorted({rank for one in groups for rank in one.group.ranks}))
    return replace(known or by_place, ranks=ranks) if groups else known or by_place


def _slow_host(named: Sequence[Outlier], groups: Sequence[GroupOutlier]) -> Cause | None:
    """Returns the cause of ranks that are all of hosts that are slow as wholes."""
    hosts = [one for one in groups if one.group.kind == HOST]
    if not hosts or {one.rank for one in named} != set(ranks_of(hosts)):
        return None
    words = [f"{len(one.members)} of {one.compared} ranks of host {one.group.name}" for one in hosts]
    return Cause(SLOW_HOST, f"{join_words(words)} are slow alike")


def _more_work(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks that are given more samples than the others of their cohort."""
    slow = {one.rank for one in named}
    ratios = []
    for one in named:
        cohort = analysis.cohorts[one.rank]
        others = [
            window.samples
            for rank, window in analysis.timed_windows.items()
            if analysis.cohorts[rank] == cohort and rank not in slow and window.samples
        ]
        own = analysis.timed_windows[one.rank].samples
        if not others or not own:
            return None
        ratios.append(own / float(np.median(others)))
    if min(ratios) < MORE_WORK_RATIO:
        return None
    return Cause(MORE_WORK, f"{ratio(min(ratios))} times the samples of the others")


def _overload(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks whose experts get many more tokens than those of other ranks, where they are slow."""
    layers = [
        layer
        for layer in expert_layers(analysis)
        if layer.ep_tokens and None not in layer.ep_tokens and all(_may_slow(layer.name, one.place) for one in named)
    ]
    if not layers:
        return None
    sums = np.sum([[tokens or 0 for tokens in layer.ep_tokens] for layer in layers], axis=0)
    places = [analysis.layout.coordinates[one.rank].get("ep", 0) for one in named]
    if not sums.sum() or max(places) >= len(sums):
        return None
    least = float(sums[places].min() / sums.mean())
    if least < MORE_TOKENS:
        return None
    return Cause(EXPERT_OVERLOAD, f"the experts of this rank get {ratio(least)} times the mean tokens")


def _may_slow(layer: str, place: Place) -> bool:
    """Returns whether an MoE layer's tokens are work of the place: of the layer, or of a whole phase."""
    if place.subject in ("forward", "backward", THROUGHOUT):
        return True
    return place.phase in ("forward", "backward") and f"{place.subject}.".startswith(f"{layer}.")


def _pauses(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks that lose most of their excess in pauses with a name, in most steps."""
    names = []
    for one in named:
        by_name = _paused_ns(analysis, one.rank)
        largest = max(by_name, key=lambda name: sum(by_name[name]), default="")
        times = by_name.get(largest, [])
        enough = [time for time in times if time >= PLACE_SHARE * one.excess_ns]
        if len(enough) < PERSISTENT * one.of_steps:
            return None
        names.append(largest)
    return Cause(PAUSES, f"most of it is {names[0]}") if names else None


def _paused_ns(analysis: Analysis, rank: int) -> dict[str, list[float]]:
    """Returns by name of the pause its time in each step that has one."""
    recorded = analysis.timed_windows[rank].collectives
    found: dict[str, list[float]] = {}
    for pauses in recorded.pauses if recorded is not None else ():
        for number, name in enumerate(pauses.names):
            times = (pauses.end_ns - pauses.start_ns)[pauses.name == number]
            if len(times):
                found.setdefault(name, []).append(float(times.sum()))
    return found


def _by_place(named: Sequence[Outlier]) -> Cause:
    phases = {one.place.phase for one in named}
    if phases == {"data"}:
        return Cause(DATA_LOADING, "the next batch comes late")
    if phases == {"optimizer"}:
        return Cause(OPTIMIZER, "the optimizer's step takes longer")
    if phases == {THROUGHOUT}:
        return Cause(SLOW_DEVICE, "no module or phase has most of it")
    return Cause()


def long_stage(analysis: Analysis, cohorts: Sequence[CohortExcess], iteration_ns: float) -> Cause | None:
    """Returns the pipeline stage that takes much longer than the mean of the stages, forward and backward together."""
    if analysis.layout.info.sizes["pp"] < 2:
        return None
    own: dict[int, list[float]] = {}
    ranks: dict[int, list[int]] = {}
    for excess in cohorts:
        places = [n for n, place in enumerate(excess.times.places) if place.subject in ("forward", "backward")]
        by_rank = np.nanmedian(excess.times.times[places].sum(axis=0), axis=1)
        for rank, time in zip(excess.times.ranks, by_rank.tolist(), strict=True):
            own.setdefault(analysis.pipelines[rank].stage, []).append(time)
            ranks.setdefault(analysis.pipelines[rank].stage, []).append(rank)
    if len(own) < 2:
        return None
    times = {stage: float(np.median(values)) for stage, values in own.items()}
    longest, mean = max(times, key=lambda stage: times[stage]), float(np.mean(list(times.values())))
    if times[longest] < LONG_STAGE_RATIO * mean or times[longest] - mean < SLOW_SHARE * iteration_ns:
        return None
    words = (
        f"stage {longest} of the pipeline ({rank_names(ranks[longest])}) takes {duration(times[longest])} for forward "
        f"and backward, {ratio(times[longest] / mean)} times the mean of the stages"
    )
    return Cause(LONG_STAGE, words, tuple(sorted(ranks[longest])))


def largest_pause(analysis: Analysis, cohorts: Sequence[CohortExcess], iteration_ns: float) -> Cause | None:
    """Returns the rank that lost most in a single step and place, if that is about an iteration, and much more than any
    other rank lost in a step: on a busy machine every rank has pauses.
    """
    pauses = sorted((_longest_of_rank(excess, n) for excess in cohorts for n in range(excess.size)), reverse=True)
    if not pauses or pauses[0][0] < max(PAUSE_SHARE * iteration_ns, PAUSE_NS):
        return None
    size, rank, iteration, place = pauses[0]
    if len(pauses) > 1 and size < MARGIN * pauses[1][0]:
        return None
    name = _named_pause(analysis, rank, iteration, size)
    words = f"rank {rank} lost {duration(size)} in iteration {iteration}, in {place}{f': {name}' if name else ''}"
    return Cause(PAUSES, words, (rank,))


def _longest_of_rank(excess: CohortExcess, column: int) -> tuple[float, int, int, str]:
    """Returns (excess in ns, rank, iteration, place) of where and when a rank was furthest above the others."""
    fine = [n for n, place in enumerate(excess.times.places) if place.level == FINE]
    by_step = np.nan_to_num(excess.by_step[fine, column])
    row, step = np.unravel_index(int(by_step.argmax()), by_step.shape)
    place = excess.times.places[fine[int(row)]]
    iteration = int(excess.times.iterations[int(step)])
    return float(by_step[row, step]), excess.times.ranks[column], iteration, place_name(place.subject, place.phase)


def _named_pause(analysis: Analysis, rank: int, iteration: int, size_ns: float) -> str:
    """Returns what stopped a rank for most of that time; empty where nothing with a name did."""
    recorded = analysis.timed_windows[rank].collectives
    for pauses in recorded.pauses if recorded is not None else ():
        if pauses.iteration == iteration:
            for number, name in enumerate(pauses.names):
                if float((pauses.end_ns - pauses.start_ns)[pauses.name == number].sum()) >= PLACE_SHARE * size_ns:
                    return name
    return ""
