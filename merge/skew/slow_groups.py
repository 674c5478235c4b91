"""Which hosts, or groups of an axis of parallelism, are slow as wholes: by the rule for ranks, on medians of groups.

    ways to divide the ranks -> the median of a group's members in each step and place, cohort by cohort
    -> the groups that stand out among the others -> those of which nearly all members are slow alike

A group explains more than its ranks: where all ranks of a machine are slow, the machine is named.  Members may be of
several cohorts, such as stages of a pipeline; each is compared with the members of other groups in its own cohort.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.job.rank_groups import HOST, RankGroup, partitions
from distprof.merge.skew.excess import CohortExcess, cohort_excess
from distprof.merge.skew.step_times import Place, StepTimes
from distprof.merge.skew.stragglers import Outlier, finest_places, outliers
from distprof.merge.skew.thresholds import MIN_COHORT, PAIR_PERSISTENT, PAIR_SHARE, PERSISTENT, STEP_SHARE
from distprof.merge.stats import middle, nan_median
from distprof.plain import dataclass
from distprof.records import AXES


@dataclass(frozen=True)
class GroupOutlier:
    """A group that stands out, the largest of its cohorts as evidence, and those of its ranks that are slow there."""

    group: RankGroup
    evidence: Outlier  # ``rank`` is the number of the group, and ``cohort`` the groups that were compared
    members: tuple[Outlier, ...]  # the largest excess first
    compared: int  # ranks of the group that have others to be compared with


def slow_groups(analysis: Analysis, cohorts: Sequence[CohortExcess], iteration_ns: float) -> tuple[GroupOutlier, ...]:
    """Returns the groups of one way to divide the ranks that stand out, the largest excess first.

    The way is chosen that explains most slow ranks with the fewest groups.
    """
    hosts = {data.rank: data.header.host for data in analysis.ranks if data.rank in analysis.timed_windows}
    best: tuple[GroupOutlier, ...] = ()
    for groups in partitions(hosts, analysis.layout):
        found = tuple(groups_standing_out(groups, cohorts, iteration_ns))
        if why_no_own_times(analysis):
            found = tuple(one for one in found if not _may_wait_inside(analysis, one))
        if _explained(found) > _explained(best):
            best = found
    return tuple(sorted(best, key=lambda one: -one.evidence.excess_ns))


def _explained(found: Collection[GroupOutlier]) -> tuple[int, int]:
    return sum(len(one.members) for one in found), -len(found)


def _may_wait_inside(analysis: Analysis, found: GroupOutlier) -> bool:
    """Returns whether members may wait for each other in a group without ranks from elsewhere: then one of them may be
    slow, and the others wait for it in the same place.
    """
    if any(axis not in (*AXES, "mp") and size > 1 for axis, size in analysis.layout.info.sizes.items()):
        return True  # groups along a part of dp, which shard parameters
    inside = set(found.group.ranks)
    timed = list(analysis.timed_windows)
    known = [group for rank in inside for group in analysis.layout.groups(rank, timed).values()]
    unknown = [group for of_size in analysis.unknown_groups.values() for group in of_size]
    alone = any(len(inside & set(group)) > 1 and inside >= set(group) for group in (*known, *unknown))
    return alone or len(found.members) < found.compared


def groups_standing_out(
    groups: Sequence[RankGroup], cohorts: Sequence[CohortExcess], iteration_ns: float
) -> Iterator[GroupOutlier]:
    """Yields those of the groups, one way to divide the ranks, that stand out.

    Of two hosts the slower one may stand out, as of two ranks; of two groups of an axis none does, because the work of
    their places on the other axes may differ.
    """
    least = 2 if groups[0].kind == HOST else MIN_COHORT
    compared = [
        (excess.times, times) for excess in cohorts if len((times := _group_times(excess.times, groups)).ranks) >= least
    ]
    found = [list(outliers(cohort_excess(times), iteration_ns)) for _, times in compared]
    for number, group in enumerate(groups):
        parts = [(own, times) for own, times in compared if number in times.ranks]
        ours = [[one for one in every if one.rank == number] for every, (_, times) in zip(found, compared, strict=True)]
        if not any(ours):
            continue
        size = sum(len(set(own.ranks) & set(group.ranks)) for own, _ in parts)
        for place, evidence in _places(ours):
            members = [one for own, times in parts for one in _slow_members(own, times, number, group, place)]
            if len(members) > 1 and len(members) >= PERSISTENT * size and _is_clear(evidence, size, iteration_ns):
                members.sort(key=lambda one: (-one.excess_ns, one.rank))
                yield GroupOutlier(group, evidence, tuple(members), size)
                break


def _is_clear(evidence: Outlier, size: int, iteration_ns: float) -> bool:
    """Returns whether a group of two, whose median is a mean, stands out by as much as one of two ranks must."""
    if size >= MIN_COHORT:
        return True
    large = evidence.excess_ns >= PAIR_SHARE * iteration_ns
    return large and evidence.steps >= PAIR_PERSISTENT * evidence.of_steps


def _group_times(times: StepTimes, groups: Sequence[RankGroup]) -> StepTimes:
    """Returns the medians of the members of each group that has some in the cohort; ``ranks`` are numbers of groups."""
    column = {rank: number for number, rank in enumerate(times.ranks)}
    columns = {
        number: own for number, group in enumerate(groups) if (own := [column[r] for r in group.ranks if r in column])
    }
    medians = [nan_median(np.moveaxis(times.times[:, own], 1, 2)) for own in columns.values()]
    return StepTimes(tuple(columns), times.iterations, times.places, np.stack(medians, axis=1))


def _places(found: Sequence[Sequence[Outlier]]) -> Iterator[tuple[Place, Outlier]]:
    """Yields where a group may be slow, the finest place with a good share of its excess first, with the evidence of
    the cohort in which it is largest.
    """
    first = max((own for own in found if own), key=lambda own: max(one.excess_ns for one in own))
    (finest,) = finest_places(first)
    yield finest.place, finest
    for one in sorted(first, key=lambda one: -one.excess_ns):
        yield one.place, one


def _slow_members(own: StepTimes, groups: StepTimes, number: int, group: RankGroup, place: Place) -> Iterator[Outlier]:
    """Yields the members of a group that are above the other groups by at least half of what the group is, in most
    steps.
    """
    if place not in own.places:
        return
    row, here = own.places.index(place), groups.ranks.index(number)
    normal = nan_median(np.delete(groups.times[row], here, axis=0).T)
    least = STEP_SHARE * _middle(groups.times[row, here] - normal)
    for column, rank in enumerate(own.ranks):
        if rank not in group.ranks:
            continue
        above = own.times[row, column] - normal
        above = above[~np.isnan(above)]
        size = _middle(above)
        steps = int(np.count_nonzero(above >= STEP_SHARE * size))
        if size > 0 and size >= least and steps >= PERSISTENT * len(above):
            yield Outlier(rank, place, size, steps, len(above), len(own.ranks), float(np.nanmedian(normal)))


def _middle(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(middle(known)) if len(known) else 0.0


def ranks_of(found: Sequence[GroupOutlier]) -> Mapping[int, Outlier]:
    """Returns the slow ranks of all groups, by rank."""
    return {one.rank: one for group in found for one in group.members}
