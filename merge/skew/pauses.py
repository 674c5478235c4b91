"""Pauses: what stopped a rank in most of its steps, and steps in which one rank lost a good part of an iteration.

Garbage collections and compilations are recorded with their names.  Any other pause shows as time that one rank lost in
one place of one step: it is told from the noise of a busy machine by its size, or because it comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray
from distprof.merge.quantities import duration
from distprof.merge.report import PAUSES, Cause
from distprof.merge.skew.excess import CohortExcess
from distprof.merge.skew.step_times import FINE
from distprof.merge.skew.stragglers import Outlier
from distprof.merge.skew.thresholds import (
    PAUSE_AGAIN,
    PAUSE_AGAIN_SHARE,
    PAUSE_MARGIN,
    PAUSE_NS,
    PAUSE_SHARE,
    PERSISTENT,
    PLACE_SHARE,
)
from distprof.merge.wording import place_name
from distprof.plain import dataclass


@dataclass(frozen=True)
class Pause:
    """What a rank lost in one place of some steps, at least so much in each; ``name`` is of what stopped it."""

    rank: int
    iterations: tuple[int, ...]
    place: str
    lost_ns: float
    name: str = ""


def pauses_of(analysis: Analysis, named: Sequence[Outlier]) -> Cause | None:
    """Returns the cause of ranks that lose most of their excess in pauses with a name, in most steps."""
    names = []
    for one in named:
        by_name: dict[str, list[float]] = {}
        for totals in paused_ns(analysis, one.rank).values():
            for name, time in totals.items():
                by_name.setdefault(name, []).append(time)
        largest = max(by_name, key=lambda name: sum(by_name[name]), default="")
        enough = [time for time in by_name.get(largest, []) if time >= PLACE_SHARE * one.excess_ns]
        if len(enough) < PERSISTENT * one.of_steps:
            return None
        names.append(largest)
    return Cause(PAUSES, f"most of it is {names[0]}") if names else None


def paused_ns(analysis: Analysis, rank: int) -> Mapping[int, Mapping[str, float]]:
    """Returns the pauses with a name of a rank, by iteration and name, in ns."""
    recorded = analysis.timed_windows[rank].collectives
    return {
        pauses.iteration: {
            name: float((pauses.end_ns - pauses.start_ns)[pauses.name == number].sum())
            for number, name in enumerate(pauses.names)
        }
        for pauses in (recorded.pauses if recorded is not None else ())
    }


def largest_pause(analysis: Analysis, cohorts: Sequence[CohortExcess], iteration_ns: float) -> Cause | None:
    """Returns the rank that lost most in single steps, as a cause without a slow rank; None where no rank lost a good
    part of an iteration, or where that cannot be told from noise.
    """
    least, least_again = (max(share * iteration_ns, PAUSE_NS) for share in (PAUSE_SHARE, PAUSE_AGAIN_SHARE))
    compared = [excess for excess in cohorts if excess.size > 1]
    found = [*_named(analysis, compared, least), *_longest(compared, least), *_repeated(compared, least_again)]
    if not found:
        return None
    # Where one pause is found in several ways, the one that says most comes first.
    first = max(found, key=lambda pause: (bool(pause.name), len(pause.iterations), pause.lost_ns))
    when = f"iteration {first.iterations[0]}"
    if len(first.iterations) > 1:
        when = f"each of iterations {', '.join(map(str, first.iterations))}"
    why = f": {first.name}" if first.name else ""
    return Cause(
        PAUSES, f"rank {first.rank} lost {duration(first.lost_ns)} in {when}, in {first.place}{why}", (first.rank,)
    )


def _named(analysis: Analysis, cohorts: Sequence[CohortExcess], least: float) -> Iterator[Pause]:
    """Yields pauses that were recorded with a name, where they made a rank slower than the others."""
    for excess in cohorts:
        for column, rank in enumerate(excess.times.ranks):
            for iteration, totals in paused_ns(analysis, rank).items():
                name = max(totals, key=lambda name: totals[name])
                step = int(np.searchsorted(excess.times.iterations, iteration))
                if totals[name] < least or iteration not in excess.times.iterations:
                    continue
                lost, place = _most_lost(excess, excess.by_step[:, column, step])
                if lost >= PLACE_SHARE * totals[name]:
                    yield Pause(rank, (iteration,), place, lost, name)


def _most_lost(excess: CohortExcess, lost: FloatArray) -> tuple[float, str]:
    """Returns the largest of the times that a rank lost by place, and the name of its place."""
    fine = _fine(excess)
    number = fine[int(np.nan_to_num(lost[fine]).argmax())]
    return float(np.nan_to_num(lost[number])), _place(excess, number)


def _longest(cohorts: Sequence[CohortExcess], least: float) -> Iterator[Pause]:
    """Yields the largest loss of all in one step and place, if no other rank lost a third as much in any."""
    every = []
    for excess in cohorts:
        for column, rank in enumerate(excess.times.ranks):
            by_step = np.nan_to_num(excess.by_step[_fine(excess), column])
            row, step = np.unravel_index(int(by_step.argmax()), by_step.shape)
            place = _place(excess, _fine(excess)[int(row)])
            every.append(Pause(rank, (int(excess.times.iterations[int(step)]),), place, float(by_step[row, step])))
    every.sort(key=lambda pause: -pause.lost_ns)
    if every and every[0].lost_ns >= max(least, PAUSE_MARGIN * (every[1].lost_ns if len(every) > 1 else 0)):
        yield every[0]


def _repeated(cohorts: Sequence[CohortExcess], least: float) -> Iterator[Pause]:
    """Yields losses of one rank in one place that come again and are of one length, as those of checkpoints are, where
    no other rank lost a third as much in this place.
    """
    for excess in cohorts:
        for number in _fine(excess):
            lost = np.nan_to_num(excess.by_step[number])
            column = int(lost.max(axis=1).argmax())
            long = np.flatnonzero(lost[column] >= least)
            others = np.delete(lost, column, axis=0).max()
            if len(long) > 1 and (sizes := lost[column, long]).min() >= max(
                PAUSE_AGAIN * sizes.max(), PAUSE_MARGIN * others
            ):
                iterations = tuple(int(iteration) for iteration in excess.times.iterations[long])
                yield Pause(excess.times.ranks[column], iterations, _place(excess, number), float(sizes.min()))


def _fine(excess: CohortExcess) -> list[int]:
    return [number for number, place in enumerate(excess.times.places) if place.level == FINE]


def _place(excess: CohortExcess, number: int) -> str:
    place = excess.times.places[number]
    return place_name(place.subject, place.phase)
