"""Joins what the ranks enqueued in their timed steps: the entries of one collective, or the ends of one message.

entries of each rank -> (channel, number) -> one collective, and when its last member came
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from distprof.merge.analysis import Analysis, computed_once
from distprof.merge.arrays import BoolArray, IntArray, combination, largest_of_each
from distprof.merge.clock.offsets import JobClock, RankClock
from distprof.merge.collectives.channels import Channel, Channels, Ends, group_members, join
from distprof.merge.collectives.moments import on_job_clock
from distprof.merge.load.collectives import RankCollectives
from distprof.plain import dataclass


@dataclass(frozen=True, eq=False)
class JoinedEntries:
    """The entries of all ranks, by rank, then step, then time.  Moments are on one clock.

    ``last_ns`` is when the last member enqueued the collective, or the sender for a receive; for a send, which waits
    for nobody, its own moment.  ``whole``: an entry of each member is known.
    """

    ranks: tuple[int, ...]
    iterations: tuple[int, ...]
    channels: tuple[Channel, ...]
    members_known: BoolArray  # by channel: False for a group of which its rank knows no members
    ops: tuple[str, ...]
    column: npt.NDArray[np.int32]  # index in ranks
    step: npt.NDArray[np.int32]  # index in iterations
    ordinal: npt.NDArray[np.int32]  # among the entries of its rank and step
    channel: npt.NDArray[np.int32]
    number: IntArray
    op: npt.NDArray[np.int32]
    event: IntArray  # equal for the entries of one collective or message
    enqueued_ns: IntArray
    last_ns: IntArray
    last_here_ns: IntArray  # when the last member on the entry's own host enqueued it
    last_error_ns: IntArray  # the largest error of last_ns for the entry's rank: 0 if that member is on its host
    whole: BoolArray
    bytes: IntArray
    duration_ns: IntArray
    waited_from_ns: IntArray  # of a message, in Python; 0: not seen
    waited_until_ns: IntArray
    on_training_thread: BoolArray

    def __len__(self) -> int:
        return len(self.column)

    @cached_property
    def of_rank(self) -> list[slice]:
        """The entries of each rank, in the order of ``ranks``."""
        return slices_of(self.column, len(self.ranks))

    @cached_property
    def unjoined(self) -> int:
        """The collectives that are not joined with those of other ranks: the members of their group are not known."""
        return int(np.count_nonzero(~self.members_known[self.channel]))

    @cached_property
    def is_message(self) -> BoolArray:
        """By entry: a send or receive."""
        ends = np.array([channel.is_of_messages for channel in self.channels], bool)
        return ends[self.channel]


def last_of_hosts(event: IntArray, host: IntArray, enqueued_ns: IntArray) -> IntArray:
    """Returns by entry when the last member on its own host enqueued the collective."""
    event_on_host = combination((event, host))
    last = largest_of_each(event_on_host, enqueued_ns, int(event_on_host.max(initial=-1)) + 1)
    found: IntArray = last[event_on_host]
    return found


def slices_of(column: npt.NDArray[np.int32], number: int) -> list[slice]:
    """Returns the places of 0, 1, ... ``number`` - 1 in an ascending column."""
    bounds = np.searchsorted(column, np.arange(number + 1)).tolist()
    return [slice(first, end) for first, end in pairwise(bounds)]


def entry_order(own: RankCollectives) -> IntArray:
    """Returns the order of a rank's entries in which they are joined: by step, then time."""
    order: IntArray = np.lexsort((own.entries.enqueued_ns, own.entries.step))
    return order


@computed_once
def recorded(analysis: Analysis) -> dict[int, RankCollectives]:
    """Returns what each rank recorded of its collectives, of the ranks that did."""
    windows = analysis.timed_windows.items()
    return {rank: window.collectives for rank, window in windows if window.collectives is not None}


def join_entries(analysis: Analysis, clock: JobClock, error_ns: int = 0) -> JoinedEntries | None:
    """Returns the joined entries of all ranks; None where no rank recorded any.

    ``clock`` may be wrong by ``error_ns`` between two hosts.
    """
    found = recorded(analysis)
    if not found:
        return None
    iterations = tuple(sorted({iteration for own in found.values() for iteration in own.iterations}))
    channels = Channels()
    ops: dict[str, int] = {}
    parts = [
        _rank_part(column, own, rank, analysis, clock, iterations, channels, ops)
        for column, (rank, own) in enumerate(found.items())
    ]
    columns = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    host = clock.numbers(found)
    return _joined(tuple(found), iterations, channels, tuple(ops), columns, host, error_ns)


def _rank_part(
    column: int, own: RankCollectives, rank: int, analysis: Analysis, job_clock: JobClock,
    iterations: tuple[int, ...], channels: Channels, ops: dict[str, int],
) -> dict[str, npt.NDArray[Any]]:  # fmt: skip
    entries, clock = own.entries, job_clock.of(rank)
    members = group_members(analysis.timed_windows[rank].collective_window, analysis.run.world_size)
    op = np.array([ops.setdefault(name, len(ops)) for name in own.ops], np.int64)
    steps = np.searchsorted(np.array(iterations), np.array(own.iterations))
    ends = Ends(own.group_names, own.ops, entries.group, entries.op, entries.peer, entries.tag)
    order = entry_order(own)
    step = entries.step[order]
    return {
        "column": np.full(len(order), column, np.int32),
        "step": steps[step].astype(np.int32),
        "ordinal": (np.arange(len(order)) - np.searchsorted(step, step)).astype(np.int32),
        "channel": channels.of_entries(rank, ends, members)[order].astype(np.int32),
        "number": entries.number[order],
        "op": (op[entries.op[order]] if len(op) else np.zeros(0, np.int64)).astype(np.int32),
        "send": ends.sends[order],
        "enqueued_ns": on_job_clock(clock, entries.enqueued_ns[order]),
        "bytes": entries.bytes[order],
        "duration_ns": entries.duration_ns[order],
        "waited_from_ns": _placed(clock, entries.waited_from_ns[order]),
        "waited_until_ns": _placed(clock, entries.waited_until_ns[order]),
        "thread": entries.thread[order],
    }


def _placed(clock: RankClock, moments_ns: IntArray) -> IntArray:
    """Returns moments on the job's clock; 0 where a moment is not known."""
    placed, known = np.zeros_like(moments_ns), moments_ns > 0
    placed[known] = on_job_clock(clock, moments_ns[known])
    return placed


def _joined(
    ranks: tuple[int, ...], iterations: tuple[int, ...], channels: Channels, ops: tuple[str, ...],
    columns: Mapping[str, npt.NDArray[Any]], host: IntArray, error_ns: int,
) -> JoinedEntries:  # fmt: skip
    events = join(columns["channel"], columns["number"], columns["enqueued_ns"])
    whole = events.entries == channels.sizes[events.channel]
    last_here_ns = last_of_hosts(events.of_entry, host[columns["column"]], columns["enqueued_ns"])
    return JoinedEntries(
        ranks=ranks,
        iterations=iterations,
        channels=channels.found,
        members_known=channels.sizes > 0,
        ops=ops,
        column=columns["column"],
        step=columns["step"],
        ordinal=columns["ordinal"],
        channel=columns["channel"],
        number=columns["number"],
        op=columns["op"],
        event=events.of_entry,
        enqueued_ns=columns["enqueued_ns"],
        last_ns=np.where(columns["send"] > 0, columns["enqueued_ns"], events.last_ns[events.of_entry]),
        last_here_ns=last_here_ns,
        last_error_ns=np.where(last_here_ns < events.last_ns[events.of_entry], error_ns, 0),
        whole=whole[events.of_entry],
        bytes=columns["bytes"],
        duration_ns=columns["duration_ns"],
        waited_from_ns=columns["waited_from_ns"],
        waited_until_ns=columns["waited_until_ns"],
        on_training_thread=columns["thread"] != 0,
    )
