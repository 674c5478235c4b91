"""Whether the ranks can be compared at all: enough of them recorded enough, and some do equal work."""

from __future__ import annotations

from distprof.merge.analysis import Analysis
from distprof.merge.skew.step_times import cohort_ranks
from distprof.merge.skew.thresholds import MIN_COVERAGE, MIN_STEPS
from distprof.merge.wording import pluralise


def why_not_comparable(analysis: Analysis) -> str:
    """Returns why no rank can be named; empty where one can."""
    cohorts, world_size = cohort_ranks(analysis), analysis.run.world_size
    timed = sum(map(len, cohorts))
    if timed < MIN_COVERAGE * world_size:
        return (
            f"only {timed:,} of {pluralise(world_size, 'rank')} recorded timed steps (less than {MIN_COVERAGE:.0%}): "
            "the slow one may be among the others, so nobody is named"
        )
    if max(map(len, cohorts), default=0) < 2:
        return "no two ranks do the same work: there is nothing to compare a rank with, so nobody is named"
    most = max(window.steps for window in analysis.timed_windows.values())
    if most < MIN_STEPS:
        return (
            f"no more than {pluralise(most, 'timed step')} {'was' if most == 1 else 'were'} recorded: it takes "
            f"{MIN_STEPS} to tell a slow rank from chance, so nobody is named"
        )
    return ""
