"""The rank's side of its slot: plain stores into the page, without a system call or a lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from distprof.heartbeat.blocks import BlockWriter, read_block, text_bytes
from distprof.heartbeat.durations import BUCKETS, bucket_of
from distprof.heartbeat.layout import (
    ACTIVITY,
    ANSWER,
    ARITHMETIC_BYTES,
    COLLECTIVE,
    COUNTERS,
    DEVICE_BYTES,
    ERROR,
    GROUP_BYTES,
    GROUPS,
    HISTOGRAM,
    HISTOGRAM_END,
    HOST_BYTES,
    IDENTITY,
    MESSAGE_BYTES,
    MODULE_BYTES,
    MOST_GROUPS,
    MOST_WORKS,
    NAME_BYTES,
    NEWEST_REQUEST,
    OP_BYTES,
    PHASE_BYTES,
    PHASES,
    PLACE_BYTES,
    PROGRESS,
    REASON_BYTES,
    REQUEST,
    TOTAL,
    UUID_BYTES,
    WHERE_BYTES,
    WORK,
    slot_offset,
)
from distprof.heartbeat.page import Page
from distprof.heartbeat.slot import NOT_MEASURED, GroupProgress, LastCollective, Request, State, StepFigures, WindowWork
from distprof.rank import procfs

#: A new duration counts for one part in so many of the smoothed one.
_SMOOTHING = 8
_NO_GROUP = (b"", 0, 0, NOT_MEASURED, NOT_MEASURED)
_NO_WORK = (b"", 0, b"", 0)


@dataclass(frozen=True)
class SlotRank:
    """What a rank says of itself when it takes its slot."""

    rank: int
    world_size: int
    local_rank: int
    node_rank: int
    host: str
    device: str
    wall_ns: int
    gpu_uuid: str = ""


class SlotWriter:
    """Writes the slot of this process.  Each block has one thread that writes it; :meth:`error` may come from any."""

    def __init__(self, page: Page, index: int, who: SlotRank, mono_ns: Callable[[], int]) -> None:
        """Takes over a slot that this process has claimed."""
        memory, slot = page.memory, slot_offset(index)
        self._page = page  # keeps the lock on the slot
        self._memory, self._slot = memory, slot
        self._now = mono_ns
        (
            self._identity,
            self._progress,
            self._activity,
            self._groups,
            self._counters,
            self._error,
            self._answer,
            self._work,
            self._collective,
        ) = (
            BlockWriter(memory, slot, block)
            for block in (IDENTITY, PROGRESS, ACTIVITY, GROUPS, COUNTERS, ERROR, ANSWER, WORK, COLLECTIVE)
        )
        self._histogram = memory[slot + HISTOGRAM : slot + HISTOGRAM_END].cast("I")
        self._total = memory[slot + TOTAL : slot + TOTAL + 8].cast("Q")
        self._newest_request = memory[slot + NEWEST_REQUEST : slot + NEWEST_REQUEST + 8].cast("Q")
        self._seen_request = self._newest_request[0]  # those to an earlier owner of the slot are not this rank's
        self._started_ns = self._began_ns = mono_ns()
        self._smoothed_ns = 0
        self._situation = int(State.QUIET), 0, 0  # state, window, the first iteration after that window
        self._who = who
        self._error_lock = Lock()
        self._clear()
        self.place("")

    def _clear(self) -> None:
        """Removes what an earlier owner of the slot left."""
        for bucket in range(BUCKETS):
            self._histogram[bucket] = 0
        self._total[0] = 0
        self._progress.write(0, self._began_ns, 0, 0, State.QUIET, 0, 0)
        self.activity("", "")
        self.groups([])
        self.counters(StepFigures())
        self.work(WindowWork())
        self.collective(None)
        self._error.write(0, b"", b"")
        self._answer.write(0, 0, 0, 0, b"")

    def place(self, place: str) -> None:
        """Says the rank's coordinates, as text."""
        who, pid = self._who, os.getpid()
        self._identity.write(
            *(who.rank, who.world_size, who.local_rank, who.node_rank),
            *(pid, procfs.started_tick(pid) or 0, who.wall_ns, self._started_ns),
            text_bytes(who.host, HOST_BYTES),
            text_bytes(place, PLACE_BYTES),
            text_bytes(who.device, DEVICE_BYTES),
            text_bytes(who.gpu_uuid, UUID_BYTES),
        )

    def iteration_begins(
        self, iteration: int, state: int, window: int, window_end: int, *, counts: bool = True
    ) -> bool:
        """Says that ``iteration`` begins now.  Returns whether there is a new request.

        ``counts``: the iteration that has ended is one, and its duration is counted.
        """
        self._situation = state, window, window_end
        if counts:
            return self.iteration_follows(iteration)
        self._began_ns = now = self._now()
        self._progress.write(iteration, now, 0, self._smoothed_ns, state, window, window_end)
        return self._newest_request[0] != self._seen_request

    def iteration_follows(self, iteration: int) -> bool:
        """Says that ``iteration`` begins now, in the state and window of the one before; returns as above."""
        now = self._now()
        duration = now - self._began_ns
        self._began_ns = now
        smoothed = self._smoothed_ns
        self._smoothed_ns = smoothed = smoothed + (duration - smoothed) // _SMOOTHING if smoothed else duration
        self._histogram[bucket_of(duration)] += 1
        self._total[0] += duration
        self._progress.write(iteration, now, duration, smoothed, *self._situation)
        return self._newest_request[0] != self._seen_request

    def ended(self, iteration: int, state: int) -> None:
        """Says that no more iterations are seen."""
        self._progress.write(iteration, self._now(), 0, self._smoothed_ns, state, 0, 0)

    def activity(self, phase: str, module: str) -> None:
        """Says in which phase the rank is, and which module runs."""
        self._activity.write(self._now(), text_bytes(phase, PHASE_BYTES), text_bytes(module, MODULE_BYTES))

    def groups(self, groups: Sequence[GroupProgress]) -> None:
        """Says how far the collectives of each group are now."""
        fields: list[Any] = [self._now()]
        for group in groups[:MOST_GROUPS]:
            fields += [text_bytes(group.name, GROUP_BYTES), *group[1:]]
        self._groups.write(*fields, *_NO_GROUP * (MOST_GROUPS - min(len(groups), MOST_GROUPS)))

    def collective(self, found: LastCollective | None) -> None:
        """Says in which collective the rank is, or was last; None: it is not known."""
        group, *numbers, op = ("", 0, 0, NOT_MEASURED, NOT_MEASURED, "") if found is None else found
        self._collective.write(self._now(), text_bytes(group, GROUP_BYTES), *numbers, text_bytes(op, OP_BYTES))

    def counters(self, figures: StepFigures) -> None:
        """Says what was measured in the last timed iteration."""
        iteration, duration_ns, phases_ns, *others = figures
        self._counters.write(iteration, duration_ns, *(phases_ns or (NOT_MEASURED,) * len(PHASES)), *others)

    def work(self, work: WindowWork) -> None:
        """Says which work an iteration is, and how long one takes."""
        fields: list[Any] = []
        for row in sorted(work.macs, key=lambda row: -row.macs)[:MOST_WORKS]:
            device, arithmetic = text_bytes(row.device, NAME_BYTES), text_bytes(row.arithmetic, ARITHMETIC_BYTES)
            fields += [device, row.threads, arithmetic, row.macs]
        missing = MOST_WORKS - len(fields) // len(_NO_WORK)
        self._work.write(work.window, work.mean_ns, work.devices, *fields, *_NO_WORK * missing)

    def error(self, where: str, message: str) -> None:
        with self._error_lock:
            self._error.write(self._now(), text_bytes(where, WHERE_BYTES), text_bytes(message, MESSAGE_BYTES))

    def request(self) -> Request | None:
        """Returns the request that is new; None while the daemon still writes it."""
        newest = self._newest_request[0]
        values = read_block(self._memory, self._slot, REQUEST)
        if values is None or values[0] != newest:
            return None
        self._seen_request = newest
        return Request(*values)

    def answer(self, number: int, iteration: int, *, window: int = 0, refusal: str = "") -> None:
        """Answers a request: with the window, or with the reason of a refusal."""
        self._answer.write(number, int(not refusal), window, iteration, text_bytes(refusal, REASON_BYTES))


def write_request(page: Page, index: int, request: Request) -> None:
    """Writes a request into a slot; the daemon is the only process that does so."""
    slot = slot_offset(index)
    BlockWriter(page.memory, slot, REQUEST).write(*request)
    page.memory[slot + NEWEST_REQUEST : slot + NEWEST_REQUEST + 8].cast("Q")[0] = request.number
