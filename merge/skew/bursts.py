"""What makes single iterations long: which ranks lose time in them, where, and what stopped them.

    times (places, ranks, steps) of the cohorts -> in a long iteration: minus each rank's own median
    -> the finest places with most of what the iteration lost -> the ranks that lose it there

Where waits are known, own times are compared, and who loses time is not a rank that waits.  Where they are not, a few
ranks that lose time in one place make the others lose it in another, in which they wait.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.collectives.own_times import why_no_own_times
from distprof.merge.report import Burst, LongStep
from distprof.merge.skew.excess import cohort_excesses
from distprof.merge.skew.pauses import paused_ns
from distprof.merge.skew.step_times import FINE, MODULE, SUM, WHOLE, Place
from distprof.merge.skew.thresholds import PLACE_SHARE
from distprof.merge.stats import middle, nan_median
from distprof.merge.times.summary import profile_summary

#: (rank, what it loses in ns)
Loser = tuple[int, float]


@computed_once
def long_steps(analysis: Analysis) -> tuple[LongStep, ...]:
    """Returns the long iterations, ascending."""
    times = profile_summary(analysis).iterations
    if times is None:
        return ()
    return tuple(_long_step(analysis, iteration, times.median_ns) for iteration in times.long)


def bursts(analysis: Analysis, paused: Collection[int]) -> tuple[Burst, ...]:
    """Returns the long iterations by their reason, the most frequent first; none of those without a known reason, and
    none of the ranks whose pauses the verdict names already.
    """
    times = profile_summary(analysis).iterations
    alike: dict[tuple[object, ...], list[LongStep]] = {}
    for one in long_steps(analysis):
        if one.ranks and set(one.ranks) != set(paused):
            alike.setdefault((one.ranks, one.subject, one.phase, one.pause), []).append(one)
    found = [
        Burst(
            iterations=tuple(one.iteration for one in own),
            of_steps=times.steps if times else 0,
            ranks=own[0].ranks,
            everywhere=own[0].everywhere,
            subject=own[0].subject,
            phase=own[0].phase,
            excess_ns=float(middle([one.excess_ns for one in own])),
            pause=own[0].pause,
        )
        for own in alike.values()
    ]
    return tuple(sorted(found, key=lambda one: (-len(one.iterations), one.iterations)))


def _long_step(analysis: Analysis, iteration: int, median_ns: float) -> LongStep:
    took = [
        float(window.durations_ns[window.iterations.index(iteration)])
        for window in analysis.timed_windows.values()
        if iteration in window.iterations
    ]
    time_ns = float(middle(took))
    for level in (FINE, MODULE, SUM, WHOLE):
        by_place = _losers(analysis, iteration, PLACE_SHARE * (time_ns - median_ns), level)
        place = _cause(by_place, own=not why_no_own_times(analysis)) if by_place else None
        if place is not None:
            ranks = tuple(sorted(rank for rank, _ in by_place[place]))
            excess_ns = float(middle([lost for _, lost in by_place[place]]))
            everywhere = len(ranks) == len(took)
            pause = _common_pause(analysis, ranks, iteration, excess_ns)
            return LongStep(iteration, time_ns, ranks, everywhere, place.subject, place.phase, excess_ns, pause)
        if by_place:
            break
    return LongStep(iteration, time_ns, (), False, "", "", time_ns - median_ns, "")


def _losers(analysis: Analysis, iteration: int, least_ns: float, level: int) -> dict[Place, list[Loser]]:
    """Returns by place of one level the ranks that lose most of the iteration's excess there."""
    found: dict[Place, list[Loser]] = {}
    for excess in cohort_excesses(analysis):
        times = excess.times
        step = int(np.searchsorted(times.iterations, iteration))
        if step == len(times.iterations) or times.iterations[step] != iteration:
            continue
        for number in [number for number, place in enumerate(times.places) if place.level == level]:
            lost = times.times[number, :, step] - nan_median(times.times[number])
            for column in np.flatnonzero(np.nan_to_num(lost) >= least_ns).tolist():
                found.setdefault(times.places[number], []).append((times.ranks[column], float(lost[column])))
    return found


def _cause(by_place: dict[Place, list[Loser]], *, own: bool) -> Place | None:
    """Returns the place that makes the iteration long: that with the largest loss, or, where waits are not known, that
    of the fewest ranks, if it is the only one; None where that cannot be told.
    """
    if own or len(by_place) == 1:
        return max(by_place, key=lambda place: sum(lost for _, lost in by_place[place]))
    fewest = min(len(losers) for losers in by_place.values())
    places = [place for place, losers in by_place.items() if len(losers) == fewest]
    return places[0] if len(places) == 1 else None


def _common_pause(analysis: Analysis, ranks: Sequence[int], iteration: int, excess_ns: float) -> str:
    """Returns the pause that took most of what the ranks lost, where it is the same for all of them."""
    names = set()
    for rank in ranks:
        totals = paused_ns(analysis, rank).get(iteration, {})
        names.add(next((name for name, time in totals.items() if time >= PLACE_SHARE * excess_ns), ""))
    return names.pop() if len(names) == 1 else ""
