"""Adds up the intervals of modules by row: in a rank that writes sums, or in the reader of intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distprof.records import NO_ROW, Array, Step


def time_slots(owners: Array, rows: int) -> Array:
    """Returns for each interval the index at which its time is added.

    Forward times by row come first, then backward times by row (owners ``~row``), then the time of no module.
    """
    found: Array = np.where(owners < 0, rows + ~owners, np.where(owners < rows, owners, 2 * rows))
    return found


def sum_by_row(where: Array, lengths_ns: Array, rows: int) -> tuple[Array, Array]:
    """Returns the forward and the backward nanoseconds of each row."""
    # Sums in float64 are exact up to 2**53 ns, 104 days.
    sums = np.bincount(where, lengths_ns, 2 * rows + 1).astype(np.int64)
    return sums[:rows], sums[rows:-1]


def with_summed_times(step: Step) -> Step:
    """Returns ``step`` with module times in place of intervals, which :func:`unsound_reason` has checked."""
    if not len(step.owners):
        return step
    rows, stamps = len(step.calls), step.stamps
    lengths = stamps[1:] - stamps[:-1]  # of the low 32 bits: the difference is right after an overflow, too
    forward_ns, backward_ns = sum_by_row(time_slots(step.owners.astype(np.int64), rows), lengths, rows)
    nothing = step.owners[:0], stamps[:0]
    return replace(step, forward_ns=forward_ns, backward_ns=backward_ns, owners=nothing[0], stamps=nothing[1])


def unsound_reason(step: Step) -> str:
    """Returns why a step's intervals cannot be added up; empty if they can, or if it has none."""
    owners, rows = step.owners, len(step.calls)
    if not len(owners):
        return "it has stamps of no turns" if len(step.stamps) else ""
    if len(step.stamps) != len(owners) + 1:
        return f"{len(owners)} turns cannot have {len(step.stamps)} stamps"
    if len(step.forward_ns) or len(step.backward_ns):
        return "it tells the times of its modules twice"
    strange = (owners != NO_ROW) & ((owners >= rows) | (owners < -rows))
    return f"a turn is of none of its {rows} modules" if strange.any() else ""
