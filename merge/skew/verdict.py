"""Decides who is slow: which ranks the report names, if it names any, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.collectives.kinds import group_kind
from distprof.merge.collectives.own_times import waits_unseen, why_no_own_times
from distprof.merge.experts.verdict import expert_verdict
from distprof.merge.quantities import duration
from distprof.merge.report import (
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    ONE_OF,
    PAUSES,
    SLOW,
    SLOW_LINK,
    Cause,
    RankVerdict,
    SlowGroup,
    Straggler,
    Verdict,
)
from distprof.merge.skew.bursts import bursts
from distprof.merge.skew.causes import cause_of, long_stage, own_cause
from distprof.merge.skew.comparable import why_not_comparable
from distprof.merge.skew.excess import CohortExcess, cohort_excesses
from distprof.merge.skew.links import SlowLink, slow_link
from distprof.merge.skew.pauses import largest_pause
from distprof.merge.skew.processors import (
    busy_processors,
    may_be_waits,
    only_waiting,
    slow_behind_waits,
    with_waits_apart,
)
from distprof.merge.skew.slow_groups import GroupOutlier, ranks_of, slow_groups
from distprof.merge.skew.step_times import FINE, WHOLE
from distprof.merge.skew.stragglers import (
    Outlier,
    detection_floor,
    finest_places,
    half_of_cohort,
    outliers,
)
from distprof.merge.skew.thresholds import HARDLY_A_COST, MARGIN, MIN_COHORT, SLOW_SHARE, STEP_SHARE
from distprof.merge.skew.waiting import may_wait
from distprof.merge.skew.what_if import Cost, cost_of_excess
from distprof.merge.skew.windows import over_windows
from distprof.merge.wording import place_name
from distprof.rank_names import rank_names


@computed_once
def verdict(analysis: Analysis) -> Verdict:
    """Returns what the report concludes."""
    ranks = rank_verdict(analysis)
    paused = ranks.group if ranks.cause == PAUSES else ()
    return Verdict(ranks, expert_verdict(analysis), bursts(analysis, paused))


@computed_once
def rank_verdict(analysis: Analysis) -> RankVerdict:
    """Returns who is slow, what that costs, and in which windows."""
    found = _slow_ranks(analysis)
    cost = _cost(analysis, found.named) if found.finding == SLOW else None
    if cost is not None and found.iteration_ns is not None:
        found = with_cost(found, found.iteration_ns, cost.cost_ns)
    return over_windows(analysis, found, _slow_ranks)


def with_cost(found: RankVerdict, iteration_ns: float, cost_ns: float) -> RankVerdict:
    """Returns the verdict with what its named ranks cost of an iteration of this length."""
    late, without_ns = cost_ns < HARDLY_A_COST * iteration_ns, max(iteration_ns - cost_ns, 0.0)
    return replace(found, cost_ns=cost_ns, iteration_without_ns=without_ns, others_are_late=late)


def _slow_ranks(analysis: Analysis) -> RankVerdict:
    """Returns who is slow in one window."""
    times = analysis.iterations
    nobody = RankVerdict(
        finding=NOT_ENOUGH,
        named=(),
        axis="",
        slow_share=SLOW_SHARE,
        iteration_ns=times.median_ns if times is not None else None,
        reason=why_not_comparable(analysis),
        why_self_times=why_no_own_times(analysis),
    )
    if nobody.reason or not nobody.iteration_ns:
        return nobody
    cohorts, iteration_ns = cohort_excesses(analysis), nobody.iteration_ns
    named = finest_places([outlier for excess in cohorts for outlier in outliers(excess, iteration_ns)])
    groups = _groups_instead(slow_groups(analysis, cohorts, iteration_ns), named, len(analysis.timed_windows))
    waiting = [
        one
        for one in only_waiting(analysis, _with_members(named, groups), cohorts, iteration_ns)
        if own_cause(analysis, [one]) is None
    ]
    named, groups = _but_for(waiting, named, groups)
    if named and not groups and own_cause(analysis, named) is None:
        named = with_waits_apart(analysis, named, cohorts, iteration_ns)
        named = _that_cost(analysis, named) if all(may_be_waits(analysis, one, named) for one in named) else named
    named = named or _that_cost(analysis, finest_places([*slow_behind_waits(analysis, cohorts, iteration_ns)]))
    link = slow_link(analysis)
    explained = link is not None and _explains(link, named)
    if link is not None and explained and link.groups >= MIN_COHORT:
        return _with_cause(nobody, Cause(SLOW_LINK, _link_words(analysis, link, iteration_ns), link.members))
    if named and not explained:
        return _slow(analysis, nobody, named, groups, cohorts)
    return _nobody(analysis, nobody, cohorts, waiting, link)


def _cost(analysis: Analysis, slow: Sequence[Outlier] | Sequence[Straggler]) -> Cost | None:
    return cost_of_excess(analysis, {one.rank: one.excess_ns for one in slow})


def _that_cost(analysis: Analysis, doubtful: list[Outlier]) -> list[Outlier]:
    """Returns the ranks that are slow behind their waits for a processor, or whose excess may be such waits, unless
    iterations would hardly be shorter without them: on a busy host so indirect an evidence accuses nobody alone.
    """
    cost, times = _cost(analysis, doubtful) if doubtful else None, analysis.iterations
    hardly = cost is not None and times is not None and cost.cost_ns < HARDLY_A_COST * times.median_ns
    return [] if hardly else doubtful


def _but_for(
    waiting: Sequence[Outlier], named: Sequence[Outlier], groups: Sequence[GroupOutlier]
) -> tuple[list[Outlier], list[GroupOutlier]]:
    """Returns the ranks and groups that stand out, the largest excess first, but for ranks that only wait for a
    processor, and groups of which all slow ranks do.
    """
    ranks = {one.rank for one in waiting}
    kept = [group for group in groups if not {one.rank for one in group.members} <= ranks]
    inside = ranks_of(kept).keys()
    return [one for one in _with_members(named, groups) if one.rank not in ranks or one.rank in inside], kept


def _slow(
    analysis: Analysis, nobody: RankVerdict, named: Sequence[Outlier], groups: Sequence[GroupOutlier],
    cohorts: Sequence[CohortExcess],
) -> RankVerdict:  # fmt: skip
    """Returns the verdict on ranks that stand out, by themselves or with their groups."""
    iteration_ns = nobody.iteration_ns or 1.0
    if not groups and (nobody.why_self_times or waits_unseen(analysis)):
        waiting = may_wait(analysis, named, cohorts)
        if waiting is not None:
            return replace(nobody, finding=ONE_OF, named=_stragglers(waiting.ranks, iteration_ns), axis=waiting.axis)
    cause = cause_of(analysis, named, groups)
    return replace(
        nobody,
        finding=SLOW,
        named=_stragglers(named, iteration_ns),
        cause=cause.name,
        evidence=cause.evidence,
        group=cause.ranks,
        groups=_slow_groups(groups, iteration_ns),
    )


def _groups_instead(groups: Sequence[GroupOutlier], named: Sequence[Outlier], timed: int) -> Sequence[GroupOutlier]:
    """Returns the groups that are named instead of their ranks: not those of which a few ranks lose much more than the
    group does, which stand for themselves, and none where more than half of the ``timed`` ranks would be named.
    """
    most = {one.rank: one.excess_ns for one in named}
    if 2 * len(most.keys() | ranks_of(groups).keys()) > timed:
        return []
    return [
        group
        for group in groups
        if not any(most.get(one.rank, 0.0) >= MARGIN * group.evidence.excess_ns for one in group.members)
    ]


def _with_members(named: Sequence[Outlier], groups: Sequence[GroupOutlier]) -> list[Outlier]:
    """Returns the ranks that stand out by themselves, and the slow ones of all groups, the largest excess first."""
    members = ranks_of(groups)
    inside = {rank for group in groups for rank in group.group.ranks}
    own = [one for one in named if one.rank not in inside]
    return sorted([*own, *members.values()], key=lambda one: (-one.excess_ns, one.rank))


def _slow_groups(groups: Sequence[GroupOutlier], iteration_ns: float) -> tuple[SlowGroup, ...]:
    return tuple(
        SlowGroup(
            kind=one.group.kind,
            name=one.group.name,
            ranks=one.group.ranks,
            slow=tuple(sorted(member.rank for member in one.members)),
            subject=one.evidence.place.subject,
            phase=one.evidence.place.phase,
            excess_ns=one.evidence.excess_ns,
            share=one.evidence.excess_ns / iteration_ns,
            steps=one.evidence.steps,
            of_steps=one.evidence.of_steps,
            groups=one.evidence.cohort,
        )
        for one in groups
    )


def _nobody(
    analysis: Analysis, nobody: RankVerdict, cohorts: Sequence[CohortExcess], waiting: Sequence[Outlier],
    link: SlowLink | None,
) -> RankVerdict:  # fmt: skip
    """Returns the verdict where no rank stands out by itself: too many do, or something else is slow, or nothing."""
    iteration_ns = nobody.iteration_ns or 1.0
    half = next((_too_many(found, excess) for excess in cohorts if (found := half_of_cohort(excess, iteration_ns))), "")
    if half and link is None:
        return replace(nobody, reason=half)
    own = not nobody.why_self_times
    cause = long_stage(analysis, cohorts, iteration_ns) if own else None
    cause = cause or (largest_pause(analysis, cohorts, iteration_ns) if own else None)
    cause = cause or (busy_processors(analysis, waiting) if waiting else None)
    if cause is None and link is not None:
        why = "which also happens by chance where there are two groups only, so nobody is named"
        return replace(nobody, reason=f"{_link_words(analysis, link, iteration_ns)}, {why}")
    floors = replace(
        nobody,
        floor_ns=_floor(cohorts, iteration_ns, FINE),
        floor_throughout_ns=_floor(cohorts, iteration_ns, WHOLE) if own else None,
    )
    return _with_cause(floors, cause or Cause())


def _with_cause(nobody: RankVerdict, cause: Cause) -> RankVerdict:
    return replace(nobody, finding=NOBODY_STANDS_OUT, cause=cause.name, evidence=cause.evidence, group=cause.ranks)


def _explains(link: SlowLink, named: Sequence[Outlier]) -> bool:
    """Returns whether a slow link is the reason that ranks stand out, if any do."""
    if not named:
        return True
    inside = {one.rank for one in named} <= set(link.members)
    return inside and link.excess_ns >= STEP_SHARE * named[0].excess_ns


def _link_words(analysis: Analysis, link: SlowLink, iteration_ns: float) -> str:
    kind = group_kind(analysis.layout, link.members, analysis.run.world_size, link.name)
    return (
        f"the collectives of {rank_names(link.members)} (one {kind} group) take {duration(link.excess_ns)} longer than "
        f"those of the other groups after their last member came, {link.excess_ns / iteration_ns:.0%} of an iteration, "
        f"in {link.steps} of {link.of_steps} steps"
    )


def _floor(cohorts: Sequence[CohortExcess], iteration_ns: float, level: int) -> float | None:
    floors = [detection_floor(excess, iteration_ns, level) for excess in cohorts if excess.size > 1]
    return max((floor for floor in floors if floor is not None), default=None)


def _stragglers(named: Sequence[Outlier], iteration_ns: float) -> tuple[Straggler, ...]:
    return tuple(
        Straggler(
            rank=one.rank,
            subject=one.place.subject,
            phase=one.place.phase,
            excess_ns=one.excess_ns,
            share=one.excess_ns / iteration_ns,
            steps=one.steps,
            of_steps=one.of_steps,
            cohort=one.cohort,
            cohort_ns=one.cohort_ns,
            processor_wait_ns=one.processor_wait_ns,
        )
        for one in named
    )


def _too_many(found: Sequence[Outlier], excess: CohortExcess) -> str:
    """Returns why none of the ranks is named that stand out together: they are a good part of their cohort."""
    ranks = {outlier.rank for outlier in found}
    others = rank_names(set(excess.times.ranks) - ranks)
    return (
        f"{rank_names(ranks)} take longer than {others} in {place_name(found[0].place.subject, found[0].place.phase)}: "
        f"{len(ranks)} of {excess.size} ranks that do the same work, too many to tell which of the two is normal, so "
        "nobody is named"
    )
