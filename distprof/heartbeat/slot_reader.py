"""Reads slots.  A page may hold anything: what does not fit is left out, and nothing raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from distprof.heartbeat.blocks import BlockReader, text_of
from distprof.heartbeat.layout import (
    ACTIVITY,
    ANSWER,
    COLLECTIVE,
    COUNTERS,
    ERROR,
    GROUPS,
    HISTOGRAM,
    HISTOGRAM_END,
    IDENTITY,
    PHASES,
    PROGRESS,
    SLOT_BYTES,
    SLOTS,
    TOTAL,
    WORK,
    slot_offset,
)
from distprof.heartbeat.page import Page
from distprof.heartbeat.slot import (
    Answer,
    DeviceMacs,
    GroupProgress,
    LastCollective,
    Position,
    RankInfo,
    State,
    StepFigures,
    WindowWork,
)
from distprof.rank import procfs

_LARGEST_RANK = 1 << 24
_GROUP_FIELDS = len(GroupProgress._fields)
_STATES = {state.value: state for state in State}


class _Identity(NamedTuple):
    """The fields of RankInfo that the block IDENTITY has, in its order."""

    rank: int
    world_size: int
    local_rank: int
    node_rank: int
    pid: int
    started_tick: int
    started_wall_ns: int
    started_ns: int
    host: str
    place: str
    device: str
    gpu_uuid: str


class _Progress(NamedTuple):
    """The fields of RankInfo that the block PROGRESS has, in its order."""

    iteration: int
    began_ns: int
    duration_ns: int | None
    smoothed_ns: int | None
    state: State
    window: int
    window_end: int


def read_slots(page: Page) -> Iterator[tuple[int, RankInfo]]:
    """Yields (index, rank) of each slot that a rank has taken."""
    return PageReader(page).slots()


class PageReader:
    """Reads the slots of a page again and again: of each rank only what has changed."""

    def __init__(self, page: Page) -> None:
        self._page = page
        words = page.memory.cast("Q")
        #: The numbers of both copies of each slot's identity: both are 0 if nobody has taken the slot.
        self._numbers = [words[start // 8 :: SLOT_BYTES // 8] for start in IDENTITY.starts(slot_offset(0))]
        self._readers: dict[int, SlotReader] = {}

    def slots(self) -> Iterator[tuple[int, RankInfo]]:
        """Yields (index, rank) of each slot that a rank has taken."""
        one, other = (numbers.tolist() for numbers in self._numbers)
        for index in range(SLOTS):
            if one[index] or other[index]:
                found = self.slot(index).rank()
                if found is not None:
                    yield index, found

    def slot(self, index: int) -> SlotReader:
        if index not in self._readers:
            self._readers[index] = SlotReader(self._page, index)
        return self._readers[index]


class SlotReader:
    """Reads one slot."""

    def __init__(self, page: Page, index: int) -> None:
        memory, slot = page.memory, slot_offset(index)
        self._identity = BlockReader(memory, slot, IDENTITY, _identity)
        self._progress = BlockReader(memory, slot, PROGRESS, _progress)
        self._activity = BlockReader(memory, slot, ACTIVITY, tuple)
        self._groups = BlockReader(memory, slot, GROUPS, _groups)
        self._collective = BlockReader(memory, slot, COLLECTIVE, _collective)
        self._figures = BlockReader(memory, slot, COUNTERS, _figures)
        self._work = BlockReader(memory, slot, WORK, _work)
        self._error = BlockReader(memory, slot, ERROR, tuple)
        self._answer = BlockReader(memory, slot, ANSWER, _answer)
        self._histogram = memory[slot + HISTOGRAM : slot + HISTOGRAM_END].cast("I")
        self._total = memory[slot + TOTAL : slot + TOTAL + 8].cast("Q")

    def rank(self) -> RankInfo | None:
        """Returns the rank of the slot; None if there is none."""
        identity, progress = self._identity.read(), self._progress.read()
        if identity is None or progress is None:
            return None
        sampled_ns, phase, module = self._activity.read() or (0, b"", b"")
        error_ns, where, message = self._error.read() or (0, b"", b"")
        _, groups = self._groups.read() or (0, ())
        return RankInfo(
            **identity._asdict(),
            **progress._asdict(),
            phase=text_of(phase),
            module=text_of(module),
            sampled_ns=sampled_ns,
            groups=groups,
            collective=self._collective.read(),
            histogram=tuple(self._histogram.tolist()),
            total_ns=self._total[0],
            last=self._figures.read() or StepFigures(),
            work=self._work.read() or WindowWork(),
            error=text_of(message) if error_ns else "",
            error_where=text_of(where) if error_ns else "",
            answer=self._answer.read(),
        )

    def position(self) -> Position | None:
        """Returns where the rank is, for a part of the time of :meth:`rank`; None where it is not known."""
        progress, groups = self._progress.read(), self._groups.read()
        if progress is None or groups is None:
            return None
        is_recorded = progress.window > 0 or progress.iteration >= progress.window_end
        return Position(progress.iteration, progress.duration_ns, progress.state, is_recorded, *groups)


def is_alive(found: RankInfo) -> bool:
    """Whether the process of a slot still runs."""
    return procfs.started_tick(found.pid) == found.started_tick


def _identity(values: Sequence[Any]) -> _Identity | None:
    """Returns None for what is no rank."""
    decoded: list[Any] = [text_of(value) if isinstance(value, bytes) else value for value in values]
    found = _Identity(*decoded)
    return found if found.rank < _LARGEST_RANK else None


def _progress(values: Sequence[Any]) -> _Progress | None:
    """Returns None for an unknown state."""
    iteration, began_ns, duration_ns, smoothed_ns, state, *window = values
    known = _STATES.get(state)
    if known is None:
        return None
    return _Progress(iteration, began_ns, duration_ns or None, smoothed_ns or None, known, *window)


def _figures(values: Sequence[Any]) -> StepFigures:
    iteration, duration_ns, *phases_ns = values[: 2 + len(PHASES)]
    return StepFigures(iteration, duration_ns, tuple(phases_ns), *values[2 + len(PHASES) :])


def _work(values: Sequence[Any]) -> WindowWork:
    rows = (values[first : first + len(DeviceMacs._fields)] for first in range(3, len(values), len(DeviceMacs._fields)))
    macs = (DeviceMacs(text_of(name), threads, text_of(arithmetic), count) for name, threads, arithmetic, count in rows)
    window, mean_ns, devices = values[:3]
    return WindowWork(window, mean_ns, devices, tuple(row for row in macs if row.macs > 0))


def _groups(values: Sequence[Any]) -> tuple[int, tuple[GroupProgress, ...]]:
    """Returns when they were looked at, and the groups: the first one without members ends them."""
    found = []
    for first in range(1, len(values), _GROUP_FIELDS):
        name, size, members, enqueued, completed = values[first : first + _GROUP_FIELDS]
        if not size:
            break
        found.append(GroupProgress(text_of(name), size, members, enqueued, completed))
    return values[0], tuple(found)


def _collective(values: Sequence[Any]) -> LastCollective | None:
    """Returns None where no group is named: a group has members."""
    _, group, size, members, number, completed, op = values
    return LastCollective(text_of(group), size, members, number, completed, text_of(op)) if size else None


def _answer(values: Sequence[Any]) -> Answer | None:
    number, accepted, window, iteration, reason = values
    if not number:
        return None
    return Answer(number, window, iteration, "" if accepted else text_of(reason) or "no reason is given")
