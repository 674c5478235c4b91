"""Pauses: what stopped a rank in most of its steps, and steps in which one rank lost a good part of an iteration.

Garbage collections and compilations are recorded with their names.  Any other pause shows as time that one rank lost in
one place of one step: it is told from the noise of a busy machine by its size, or because it comes again.  What a
rank waited longer for a processor in a step is no pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distprof.merge.analysis import Analysis
from distprof.merge.arrays import FloatArray, IntArray
from distprof.merge.quantities import duration
from distprof.merge.report import PAUSES, Cause
from distprof.merge.skew.excess import CohortExcess, excess_over_others
from distprof.merge.skew.processors import waits_by_step
from distprof.merge.skew.step_times import FINE
from distprof.merge.skew.stragglers import Outlier
from distprof.merge.skew.thresholds import (
    PAUSE_AGAIN,
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
    least = max(PAUSE_SHARE * iteration_ns, PAUSE_NS)
    losses = [_losses(analysis, excess) for excess in cohorts if excess.size > 1]
    found = [*_named(analysis, losses, least), *_longest(losses, least), *_repeated(losses, least)]
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


@dataclass(frozen=True, eq=False)
class _Losses:
    """What the ranks of a cohort lost, (places, ranks, steps), in the finest places only: all of it, and what is left
    without what a rank waited longer for a processor than the others in the same step.

    In which place a rank waited is not known: all of it is taken from each place.
    """

    excess: CohortExcess
    places: IntArray  # their numbers in ``excess``
    lost_ns: FloatArray
    unwaited_ns: FloatArray

    def pause(self, number: int, column: int, steps: Sequence[int] | IntArray, name: str = "") -> Pause:
        """Returns the losses of one rank in some steps as a pause in one of ``places``."""
        times = self.excess.times
        place = times.places[self.places[number]]
        iterations = tuple(int(times.iterations[step]) for step in steps)
        lost_ns = float(self.lost_ns[number, column, steps].min())
        return Pause(times.ranks[column], iterations, place_name(place.subject, place.phase), lost_ns, name)


def _losses(analysis: Analysis, excess: CohortExcess) -> _Losses:
    places = np.array([number for number, place in enumerate(excess.times.places) if place.level == FINE], np.int64)
    waits_ns = np.stack([waits_by_step(analysis, rank, excess.times) for rank in excess.times.ranks])
    longer_ns = np.nan_to_num(np.maximum(excess_over_others(waits_ns), 0))
    lost_ns = np.nan_to_num(excess.by_step[places])
    return _Losses(excess, places, lost_ns, lost_ns - longer_ns)


def _named(analysis: Analysis, cohorts: Sequence[_Losses], least: float) -> Iterator[Pause]:
    """Yields pauses that were recorded with a name, where they made a rank slower than the others."""
    for losses in cohorts:
        iterations = losses.excess.times.iterations
        for column, rank in enumerate(losses.excess.times.ranks):
            for iteration, totals in paused_ns(analysis, rank).items():
                name = max(totals, key=lambda name: totals[name])
                if totals[name] < least or iteration not in iterations:
                    continue
                step = int(np.searchsorted(iterations, iteration))
                number = int(losses.lost_ns[:, column, step].argmax())
                if losses.lost_ns[number, column, step] >= PLACE_SHARE * totals[name]:
                    yield losses.pause(number, column, [step], name)


def _longest(cohorts: Sequence[_Losses], least: float) -> Iterator[Pause]:
    """Yields the largest loss of all in one step and place, if no other rank lost a third as much in any."""
    ranks = [(losses, column) for losses in cohorts for column in range(losses.excess.size)]
    if not ranks:
        return
    largest_ns = [float(losses.unwaited_ns[:, column].max()) for losses, column in ranks]
    first = largest_ns.index(max(largest_ns))
    others_ns = max((one for rank, one in enumerate(largest_ns) if rank != first), default=0.0)
    if largest_ns[first] >= max(least, PAUSE_MARGIN * others_ns):
        losses, column = ranks[first]
        own_ns = losses.unwaited_ns[:, column]
        number, step = np.unravel_index(int(own_ns.argmax()), own_ns.shape)
        yield losses.pause(int(number), column, [int(step)])


def _repeated(cohorts: Sequence[_Losses], least: float) -> Iterator[Pause]:
    """Yields losses of one rank in one place that come again and are of one length, as those of checkpoints are, where
    no other rank lost a third as much in this place.
    """
    for losses in cohorts:
        for number, own_ns in enumerate(losses.unwaited_ns):
            column = int(own_ns.max(axis=1).argmax())
            long = np.flatnonzero(own_ns[column] >= least)
            others = np.delete(own_ns, column, axis=0).max()
            if len(long) > 1 and (sizes := own_ns[column, long]).min() >= max(
                PAUSE_AGAIN * sizes.max(), PAUSE_MARGIN * others
            ):
                yield losses.pause(number, column, long)
