"""What of each rank's time is its own, and whether that is known at all.

waits of the gaps -> credited to the module that had the gap, and to the phase -> subtracted from self times
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, FloatArray, IntArray
from distprof.merge.collectives.job_clock import joined_entries
from distprof.merge.collectives.join import recorded
from distprof.merge.collectives.waits import Waits, collective_waits
from distprof.merge.load.collectives import NO_TIMELINE
from distprof.merge.load.window import Window
from distprof.merge.wording import pluralise
from distprof.plain import dataclass
from distprof.records import NO_ROW, PHASES


@dataclass(frozen=True, eq=False)
class RankWaits:
    """The waits of one rank in the timed steps, one entry for each gap in which it waited."""

    iteration: IntArray
    owner: IntArray  # module of the union, ~module in its backward, or records.NO_ROW
    phase: IntArray  # index in PHASES, or -1
    wait_ns: IntArray


@computed_once
def why_no_own_times(analysis: Analysis) -> str:
    """Returns why it is not known which part of their times the ranks waited; empty where it is."""
    windows = analysis.timed_windows
    reasons = [reason for window in windows.values() if (reason := _why_unknown(window))]
    if len(reasons) in (0, len(windows)):
        return reasons[0] if reasons else ""
    return f"{pluralise(len(reasons), 'rank')} of {len(windows):,}: {reasons[0]}"


def _why_unknown(window: Window) -> str:
    """Returns why the waits of one rank are not known."""
    seen = window.collective_window
    if seen is None:
        return "collectives were not recorded"
    if not seen.source:
        return seen.unseen or "collectives were not seen"
    if window.collectives is None:
        return NO_TIMELINE
    return window.collectives.turns_unseen


@computed_once
def messages_unseen(analysis: Analysis) -> str:
    """Returns why sends and receives were not seen; empty where they were."""
    windows = [window.collective_window for window in analysis.timed_windows.values()]
    return next((seen.message_unseen for seen in windows if seen is not None and seen.message_unseen), "")


def collectives_unjoined(analysis: Analysis) -> bool:
    """Returns whether some collectives are in groups whose members are not known."""
    entries = joined_entries(analysis)
    return entries is not None and entries.unjoined > 0


def waits_unseen(analysis: Analysis) -> bool:
    """Returns whether some waits may be taken for a rank's own time: those for messages that were not seen, and those
    in groups whose members are not known.
    """
    return bool(messages_unseen(analysis)) or collectives_unjoined(analysis)


@computed_once
def lossy_iterations(analysis: Analysis) -> frozenset[int]:
    """Returns the iterations in which entries of some rank may have been overwritten: waits in them are not known."""
    steps = (zip(own.iterations, own.lost.tolist(), strict=True) for own in recorded(analysis).values())
    return frozenset(iteration for own in steps for iteration, lost in own if lost)


@computed_once
def rank_waits(analysis: Analysis) -> dict[int, RankWaits]:
    """Returns the waits of each rank; empty where own times are not known."""
    waits = collective_waits(analysis) if not why_no_own_times(analysis) else None
    return dict(_by_rank(waits)) if waits is not None else {}


def waited_by_step(analysis: Analysis, rank: int, chosen: Callable[[RankWaits], BoolArray]) -> FloatArray:
    """Returns by timed step of a rank what it waited in the gaps that ``chosen`` returns, in ns; 0 where waits are not
    known.
    """
    window, waits = analysis.timed_windows[rank], rank_waits(analysis).get(rank)
    waited = np.zeros(window.steps)
    if waits is not None:
        iterations = np.array(window.iterations, np.int64)
        known = chosen(waits) & np.isin(waits.iteration, iterations)
        np.add.at(waited, np.searchsorted(iterations, waits.iteration[known]), waits.wait_ns[known])
    return waited


def in_forward(waits: RankWaits) -> BoolArray:
    """Chooses the waits in modules: they are a part of the modules' self times in forward."""
    found: BoolArray = (waits.owner >= 0) & (waits.owner != NO_ROW)
    return found


def in_backward(waits: RankWaits) -> BoolArray:
    """Chooses the waits in the phase of backward."""
    found: BoolArray = waits.phase == PHASES.index("backward")
    return found


def _by_rank(waits: Waits) -> Iterator[tuple[int, RankWaits]]:
    columns, gaps = waits.gaps.column[waits.gap], waits.gaps
    iterations = np.array(waits.entries.iterations, np.int64)
    for column, rank in enumerate(waits.entries.ranks):
        own = slice(*np.searchsorted(columns, [column, column + 1]).tolist())
        gap = waits.gap[own]
        yield (
            rank,
            RankWaits(
                iteration=iterations[gaps.step[gap]],
                owner=gaps.owner[gap],
                phase=gaps.phase[gap].astype(np.int64),
                wait_ns=waits.wait_ns[own],
            ),
        )
