"""Decides who is slow: which ranks the report names, if it names any, and on what evidence."""

from __future__ import annotations

from distprof.merge.analysis import Analysis
from distprof.merge.experts.verdict import expert_verdict
from distprof.merge.report import (
    NOBODY_STANDS_OUT,
    NOT_ENOUGH,
    SLOW,
    SLOW_TOGETHER,
    RankVerdict,
    Skew,
    Spread,
    Verdict,
)
from distprof.merge.skew.skew import skew_over_ranks
from distprof.merge.times.summary import profile_summary

#: A rank is called slow when its excess is at least this share of the iteration; below it, ranks differ by chance.
SLOW_SHARE = 0.05


def verdict(analysis: Analysis) -> Verdict:
    """Returns what the report concludes."""
    ranks = rank_verdict(skew_over_ranks(analysis), profile_summary(analysis).wall_iteration_ns)
    return Verdict(ranks, expert_verdict(analysis))


def rank_verdict(skew: Skew, iteration: Spread | None) -> RankVerdict:
    """Returns who is slow, from the excess of the suspects and the ``iteration`` over ranks."""
    suspects = skew.suspects if iteration is not None and iteration.median else None
    share = suspects.ranks[0].excess_ns / iteration.median if suspects and iteration else None
    slow = suspects if share is not None and share >= SLOW_SHARE else None
    return RankVerdict(
        finding=_finding(skew, len(slow.ranks) if slow else 0),
        named=slow.ranks if slow else (),
        axis=slow.axis if slow else "",
        likely=slow.likely if slow else None,
        may_wait_for=slow.may_wait_for if slow else (),
        largest=suspects.ranks[0] if suspects else None,
        share=share,
        slow_share=SLOW_SHARE,
        iteration_ns=iteration.median if iteration else None,
        reason=skew.too_few,
    )


def _finding(skew: Skew, named: int) -> str:
    if skew.too_few:
        return NOT_ENOUGH
    if not named:
        return NOBODY_STANDS_OUT
    return SLOW if named == 1 else SLOW_TOGETHER
