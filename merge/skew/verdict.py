"""Decides who is slow: which ranks the report names, if it names any, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.collectives.own_times import messages_unseen, why_no_own_times
from distprof.merge.experts.verdict import expert_verdict
from distprof.merge.report import (
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    ONE_OF,
    SLOW,
    RankVerdict,
    Straggler,
    Verdict,
)
from distprof.merge.skew.cohort_excess import CohortExcess, cohort_excesses
from distprof.merge.skew.comparable import why_not_comparable
from distprof.merge.skew.step_times import FINE, WHOLE
from distprof.merge.skew.stragglers import (
    Outlier,
    detection_floor,
    finest_places,
    half_of_cohort,
    outliers,
)
from distprof.merge.skew.thresholds import SLOW_SHARE
from distprof.merge.skew.waiting import may_wait
from distprof.merge.times.summary import profile_summary
from distprof.merge.wording import place_name, rank_names


def verdict(analysis: Analysis) -> Verdict:
    """Returns what the report concludes."""
    return Verdict(rank_verdict(analysis), expert_verdict(analysis))


@computed_once
def rank_verdict(analysis: Analysis) -> RankVerdict:
    """Returns who is slow."""
    iteration = profile_summary(analysis).wall_iteration_ns
    nobody = RankVerdict(
        finding=NOT_ENOUGH,
        named=(),
        axis="",
        slow_share=SLOW_SHARE,
        iteration_ns=iteration.median if iteration else None,
        reason=why_not_comparable(analysis),
        why_self_times=why_no_own_times(analysis),
    )
    if nobody.reason or not nobody.iteration_ns:
        return nobody
    cohorts, iteration_ns = cohort_excesses(analysis), nobody.iteration_ns
    named = finest_places([outlier for excess in cohorts for outlier in outliers(excess, iteration_ns)])
    why_self = why_no_own_times(analysis)
    waiting = may_wait(analysis, named, cohorts) if named and (why_self or messages_unseen(analysis)) else None
    if waiting is not None:
        return replace(nobody, finding=ONE_OF, named=_stragglers(waiting.ranks, iteration_ns), axis=waiting.axis)
    if named:
        return replace(nobody, finding=SLOW, named=_stragglers(named, iteration_ns))
    half = next((_too_many(found, excess) for excess in cohorts if (found := half_of_cohort(excess, iteration_ns))), "")
    if half:
        return replace(nobody, reason=half)
    return replace(
        nobody,
        finding=NOBODY_STANDS_OUT,
        floor_ns=_floor(cohorts, iteration_ns, FINE),
        floor_throughout_ns=None if why_self else _floor(cohorts, iteration_ns, WHOLE),
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
