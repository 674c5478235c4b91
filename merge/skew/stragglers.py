"""Which ranks are slow themselves, and which may only wait for a rank of their group.

The ranks of a group (tensor parallel, expert parallel, ...) wait for each other in the middle of an iteration.  Where
such a group is less than half of its cohort, waiting ranks are above the cohort's median as well: one rank computes,
the others wait, and all have nearly the same excess.  So a rank is not named alone for a small difference:

    largest excess of each rank -> the worst rank, and those of one of its groups that are nearly as far above
    -> one suspect, or several that are slow together
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from distprof.merge.arrays import FloatArray
from distprof.merge.job.topology import JobTopology
from distprof.merge.report import Straggler, Stragglers

#: Ranks of one group whose excess is at least this share of the worst one's are slow together with it.
CLOSE = 0.8
#: A rank whose excess in a place is below this share of the largest there does not wait in it.
FAR = 0.5


def find_stragglers(
    places: Sequence[tuple[str, str]],
    excess: FloatArray,
    ranks: Sequence[int],
    layout: JobTopology,
    groups: Sequence[tuple[int, ...]] = (),
) -> Stragglers | None:
    """Returns the ranks among which the slow one is; None where no rank has an excess above 0.

    ``excess`` is (places, ranks), in ns, NaN where a rank has none; a place is (subject, phase).  The ranks of one of
    ``groups``, whose purpose is not known, may wait for each other.
    """
    highest = np.nan_to_num(excess, nan=-np.inf).max(axis=0, initial=-np.inf)
    if not len(highest) or highest.max() <= 0:
        return None
    worst = int(highest.argmax())
    close = {rank for rank, most in zip(ranks, highest, strict=True) if most >= CLOSE * highest[worst]}
    axis, members = _largest_group(layout, ranks[worst], close, ranks)
    suspects = [_suspect(places, excess, ranks, column) for column, rank in enumerate(ranks) if rank in members]
    suspects.sort(key=lambda suspect: (-suspect.excess_ns, suspect.rank))
    alone = len(suspects) == 1
    if not alone:
        return Stragglers(tuple(suspects), axis, _likely(suspects, places, excess, ranks, layout, axis))
    others = _may_wait_for(suspects[0], groups)
    return Stragglers(tuple(suspects), "", None if others else suspects[0].rank, others)


def _may_wait_for(one: Straggler, groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the ranks that ``one`` may wait for in a module; phases outside of modules have no collectives."""
    met = {rank for group in groups if one.rank in group for rank in group}
    return tuple(sorted(met - {one.rank})) if one.subject != one.phase else ()


def _largest_group(
    layout: JobTopology, rank: int, close: Collection[int], ranks: Collection[int]
) -> tuple[str, set[int]]:
    """Returns the group of ``rank`` with most ranks that are slow with it: (its axis, those ranks).

    A rank does not look slow by waiting where more than half of its cohort is in the group: the median then waits too.
    """
    cohorts = Counter(layout.role(other) for other in ranks)
    found = []
    for axis, group in layout.groups(rank, ranks).items():
        inside = Counter(layout.role(other) for other in group)
        minor = {other for other in group if 2 * inside[layout.role(other)] <= cohorts[layout.role(other)]}
        found.append((axis, {rank} | (set(close) & minor)))
    return max(found, key=lambda one: len(one[1]), default=("", {rank}))


def _suspect(places: Sequence[tuple[str, str]], excess: FloatArray, ranks: Sequence[int], column: int) -> Straggler:
    place = int(np.nanargmax(excess[:, column]))
    subject, phase = places[place]
    return Straggler(rank=ranks[column], subject=subject, phase=phase, excess_ns=float(excess[place, column]))


def _likely(
    suspects: Sequence[Straggler], places: Sequence[tuple[str, str]], excess: FloatArray, ranks: Sequence[int],
    layout: JobTopology, axis: str,
) -> int | None:  # fmt: skip
    """Returns the only rank of a group of three or more without an excess where all others have one: they wait for it.

    None where there is no such rank.
    """
    members = set(layout.groups(suspects[0].rank, ranks)[axis])
    column = {rank: number for number, rank in enumerate(ranks)}
    for one in suspects:
        others = [suspect for suspect in suspects if suspect is not one]
        waits = {(other.subject, other.phase) for other in others}
        if len(members) >= 3 and len(waits) == 1:
            place, enough = places.index(waits.pop()), FAR * max(other.excess_ns for other in others)
            waiting = {rank for rank in members if _excess_at(excess, place, column[rank]) >= enough}
            if waiting == members - {one.rank}:
                return one.rank
    return None


def _excess_at(excess: npt.NDArray[np.float64], place: int, column: int) -> float:
    return float(np.nan_to_num(excess[place, column]))
