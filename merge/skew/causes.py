"""Why a rank is slow, as far as the records tell, and the stage of a pipeline that is slow instead of a rank.

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
    BOTH_WAYS,
    BUSY_PROCESSORS,
    DATA_LOADING,
    EXPERT_OVERLOAD,
    LONG_STAGE,
    MORE_WORK,
    OPTIMIZER,
    SLOW_DEVICE,
    SLOW_HOST,
    THROUGHOUT,
    Cause,
)
from distprof.merge.skew.excess import CohortExcess
from distprof.merge.skew.pauses import pauses_of
from distprof.merge.skew.processors import longer_wait_ns
from distprof.merge.skew.slow_groups import GroupOutlier, ranks_of
from distprof.merge.skew.step_times import Place
from distprof.merge.skew.stragglers import Outlier
from distprof.merge.skew.thresholds import LONG_STAGE_RATIO, MORE_TOKENS, MORE_WORK_RATIO, PLACE_SHARE, SLOW_SHARE
from distprof.merge.stats import middle
from distprof.merge.wording import join_words
from distprof.rank_names import rank_names


def cause_of(analysis: Analysis, named: Sequence[Outlier], groups: Sequence[GroupOutlier] = ()) -> Cause:
    """Returns why the named ranks are slow, of which those of ``groups`` are slow as wholes."""
    by_place = _by_place(named)
    known = own_cause(analysis, named)
    if known is None and by_place.name in (SLOW_DEVICE, ""):
        known = _busy_processors(analysis, named) or _slow_host(named, groups)
    ranks = tuple(sorted({rank for one in groups for rank in one.group.ranks}))
    return replace(known or by_place, ranks=ranks) if groups else known or by_place


def own_cause(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks that have more to do than the others, or that something stops; None without one."""
    return _more_work(analysis, named) or _overload(analysis, named) or pauses_of(analysis, named)


def _busy_processors(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks that lose most of their excess, which is in no module, while no processor is free."""
    if any(one.without_processor_waits for one in named):
        return None
    slow = {one.rank for one in named}
    longer = [longer_wait_ns(analysis, one.rank, slow) for one in named]
    in_no_module = all(one.place.subject in ("forward", "backward", THROUGHOUT) for one in named)
    lost = [one.excess_ns + one.processor_wait_ns for one in named]
    mostly = all(wait >= PLACE_SHARE * every for wait, every in zip(longer, lost, strict=True))
    if not (in_no_module and mostly):
        return None
    words = f"ready to run while no processor was free, {duration(min(longer))} longer than the others"
    return Cause(BUSY_PROCESSORS, words)


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
        ratios.append(own / float(middle(others)))
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
    return place.phase in ("forward", "backward", BOTH_WAYS) and f"{place.subject}.".startswith(f"{layer}.")


def _by_place(named: Sequence[Outlier]) -> Cause:
    phases = {one.place.phase for one in named}
    if phases == {"data"}:
        return Cause(DATA_LOADING, "the next batch comes late")
    if phases == {"optimizer"}:
        return Cause(OPTIMIZER, "the optimizer's step takes longer")
    if phases == {THROUGHOUT}:
        waits = ", and waits for a processor are left out" if any(one.without_processor_waits for one in named) else ""
        return Cause(SLOW_DEVICE, f"no module or phase has most of it{waits}")
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
    times = {stage: float(middle(values)) for stage, values in own.items()}
    longest, mean = max(times, key=lambda stage: times[stage]), float(np.mean(list(times.values())))
    if times[longest] < LONG_STAGE_RATIO * mean or times[longest] - mean < SLOW_SHARE * iteration_ns:
        return None
    words = (
        f"stage {longest} of the pipeline ({rank_names(ranks[longest])}) takes {duration(times[longest])} for forward "
        f"and backward, {ratio(times[longest] / mean)} times the mean of the stages"
    )
    return Cause(LONG_STAGE, words, tuple(sorted(ranks[longest])))
