"""The report's section on collectives: by kind of group and op, by rank, and those that some members never entered.

All amounts are of one iteration: sums over the ranks that take part and their timed steps, divided by both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, FloatArray, IntArray, distinct, smallest_of_each
from distprof.merge.collectives.channels import Channel
from distprof.merge.collectives.job_clock import joined_entries
from distprof.merge.collectives.join import JoinedEntries, slices_of
from distprof.merge.collectives.kinds import group_kind
from distprof.merge.collectives.own_times import messages_unseen, why_no_own_times
from distprof.merge.collectives.unentered import unentered_collectives
from distprof.merge.collectives.waits import Waits, collective_waits
from distprof.merge.quantities import NS_PER_SECOND
from distprof.merge.report import CollectiveRow, Collectives, RankWait
from distprof.merge.stats import middle
from distprof.plain import dataclass


@computed_once
def collectives_section(analysis: Analysis) -> Collectives:
    """Returns what was seen of the collectives of the timed steps."""
    entries, why_not = joined_entries(analysis), why_no_own_times(analysis)
    if entries is None:
        return Collectives(why_not=why_not, ranks=0, steps=0)
    waits = None if why_not else collective_waits(analysis)
    seen = [window.collective_window for window in analysis.timed_windows.values() if window.collective_window]
    return Collectives(
        why_not=why_not,
        ranks=len(entries.ranks),
        steps=len(entries.iterations),
        rows=tuple(sorted(_rows(analysis, entries, waits), key=lambda row: (-(row.wait_ns or 0), -row.calls))),
        waits=tuple(_rank_waits(entries, waits)),
        unentered=unentered_collectives(analysis, entries),
        unjoined=entries.unjoined,
        lost=sum(one.lost for one in seen),
        source=next((one.source for one in seen if one.source), ""),
        message_source=next((one.message_source for one in seen if one.message_source), ""),
        message_unseen=messages_unseen(analysis),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """The entries of one row, and the waits for them."""

    entries: IntArray  # indices
    waits: IntArray  # indices in Waits.gap; empty where they are not known


def _rows(analysis: Analysis, entries: JoinedEntries, waits: Waits | None) -> Iterator[CollectiveRow]:
    kinds = [_kind(analysis, channel) for channel in entries.channels]
    names = sorted(set(kinds))
    kind = np.array([names.index(own) for own in kinds], np.int64)[entries.channel]
    row = kind * len(entries.ops) + entries.op
    times = analysis.iterations
    iteration_ns = times.median_ns if times is not None else 0.0
    for number in distinct(row).tolist():
        waited = np.flatnonzero(row[waits.entry] == number) if waits is not None else np.zeros(0, np.int64)
        part = _Part(np.flatnonzero(row == number), waited)
        where = names[number // len(entries.ops)], entries.ops[number % len(entries.ops)]
        yield _row(where, entries, waits, part, iteration_ns)


def _kind(analysis: Analysis, channel: Channel) -> str:
    if channel.is_of_messages and analysis.layout.info.sizes["pp"] > 1:
        return "pp"
    return group_kind(analysis.layout, channel.members, analysis.run.world_size, channel.group)


def _row(
    where: tuple[str, str], entries: JoinedEntries, waits: Waits | None, part: _Part, iteration_ns: float
) -> CollectiveRow:
    own = part.entries
    ranks = len(distinct(entries.column[own]))
    rank_steps = ranks * len(entries.iterations)
    channels = {entries.channels[channel] for channel in distinct(entries.channel[own]).tolist()}
    sizes_known = (entries.bytes[own] >= 0).all()
    moved = float(entries.bytes[own].sum()) / rank_steps if sizes_known else None
    transfer, device_wait = _device_times(entries, own, rank_steps)
    waited = device_wait
    rest = None
    if waits is not None and waited is None:
        waited = float(waits.wait_ns[part.waits].sum()) / rank_steps
        gaps = waits.gap[part.waits]
        length = waits.gaps.end_ns[gaps] - waits.gaps.start_ns[gaps]
        rest = float((length - waits.wait_ns[part.waits]).sum()) / rank_steps
    known = [time for time in (waited, transfer) if time is not None]
    return CollectiveRow(
        kind=where[0],
        op=where[1],
        groups=len({(one.group, one.members, *sorted((one.source, one.destination))) for one in channels}),
        members=max(len(one.participants) for one in channels),
        calls=len(own) / rank_steps,
        bytes=moved,
        own_ns=rest,
        wait_ns=waited,
        transfer_ns=transfer,
        bytes_per_second=moved / (transfer / NS_PER_SECOND) if moved is not None and transfer else None,
        share=sum(known) / iteration_ns if known and iteration_ns else None,
    )


def _device_times(entries: JoinedEntries, own: IntArray, rank_steps: int) -> tuple[float | None, float | None]:
    """Returns the transfer, and the wait in the collectives, by the device's own timing; None where it was off.

    The member that came last has the shortest duration, which is the transfer alone; no clocks are compared.
    """
    durations = entries.duration_ns[own]
    if not (durations >= 0).all():
        return None, None
    _, event = np.unique(entries.event[own], return_inverse=True)
    least = smallest_of_each(event, durations, int(event.max()) + 1)
    transfer = float(least[event].sum()) / rank_steps
    return transfer, float(durations.sum()) / rank_steps - transfer


def _rank_waits(entries: JoinedEntries, waits: Waits | None) -> Iterator[RankWait]:
    if waits is None:
        return
    steps = len(entries.iterations)
    waited = np.zeros((len(entries.ranks), steps))
    np.add.at(waited, (waits.gaps.column[waits.gap], waits.gaps.step[waits.gap]), waits.wait_ns)
    own = np.flatnonzero(entries.whole & ~entries.is_message)
    lag, is_last = _lags(entries.event[own], entries.enqueued_ns[own])
    of_rank = slices_of(entries.column[own], len(entries.ranks))
    for rank, mine, wait_ns in zip(entries.ranks, of_rank, middle(waited, axis=1).tolist(), strict=True):
        yield RankWait(
            rank=rank,
            wait_ns=wait_ns,
            lag_ns=float(middle(lag[mine])) if mine.stop > mine.start else 0.0,
            last=int(np.count_nonzero(is_last[mine])),
        )


def _lags(event: IntArray, moments_ns: IntArray) -> tuple[FloatArray, BoolArray]:
    """Returns for each entry its moment minus the median of the members' moments, and whether it was the last."""
    order = np.lexsort((moments_ns, event))
    _, first, size = np.unique(event[order], return_index=True, return_counts=True)
    ordered = moments_ns[order]
    low, high = ordered[first + (size - 1) // 2], ordered[first + size // 2]
    lag, last = np.zeros(len(event)), np.zeros(len(event), bool)
    # Moments are too large for exact float64: the difference is taken first.
    base = np.repeat(low, size)
    lag[order] = (ordered - base) - np.repeat((high - low) / 2.0, size)
    last[order[first + size - 1]] = True
    return lag, last
