"""Reads slots.  A page may hold anything: what does not fit is left out, and nothing raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distprof.heartbeat.blocks import read_block, text_of
from distprof.heartbeat.durations import quantile_ns, without_longest
from distprof.heartbeat.layout import (
    ACTIVITY,
    ANSWER,
    COUNTERS,
    ERROR,
    GROUPS,
    HISTOGRAM,
    HISTOGRAM_END,
    IDENTITY,
    PHASES,
    PROGRESS,
    SLOTS,
    TOTAL,
    WORK,
    slot_offset,
)
from distprof.heartbeat.page import Page
from distprof.heartbeat.slot import (
    UNUSUAL,
    Answer,
    DeviceMacs,
    GroupProgress,
    Position,
    RankInfo,
    State,
    StepFigures,
    WindowWork,
)
from distprof.rank import procfs

_MEDIAN, _P99 = 0.5, 0.99
_LARGEST_RANK = 1 << 24


def read_slots(page: Page) -> Iterator[tuple[int, RankInfo]]:
    """Yields (index, rank) of each slot that a rank has taken."""
    words = page.memory.cast("Q")
    one, other = IDENTITY.offset // 8, (IDENTITY.offset + IDENTITY.copy_bytes) // 8
    for index in range(SLOTS):
        first = slot_offset(index) // 8
        if not words[first + one] and not words[first + other]:  # their numbers: nobody has taken this slot
            continue
        found = read_slot(page, index)
        if found is not None:
            yield index, found


def read_slot(page: Page, index: int) -> RankInfo | None:
    """Returns the rank of a slot; None if there is none."""
    memory, slot = page.memory, slot_offset(index)
    identity, progress = (read_block(memory, slot, block) for block in (IDENTITY, PROGRESS))
    if identity is None or progress is None or progress[4] not in State._value2member_map_:
        return None
    if identity[0] >= _LARGEST_RANK:
        return None
    iteration, began_ns, duration_ns, smoothed_ns, state, window, window_end = progress
    counts = memory[slot + HISTOGRAM : slot + HISTOGRAM_END].cast("I").tolist()
    sampled_ns, phase, module = read_block(memory, slot, ACTIVITY) or (0, b"", b"")
    _, *groups = read_block(memory, slot, GROUPS) or (0,)
    error_ns, where, message = read_block(memory, slot, ERROR) or (0, b"", b"")
    return RankInfo(
        rank=identity[0],
        world_size=identity[1],
        local_rank=identity[2],
        node_rank=identity[3],
        pid=identity[4],
        started_tick=identity[5],
        started_wall_ns=identity[6],
        started_ns=identity[7],
        host=text_of(identity[8]),
        place=text_of(identity[9]),
        device=text_of(identity[10]),
        gpu_uuid=text_of(identity[11]),
        state=State(state),
        iteration=iteration,
        began_ns=began_ns,
        duration_ns=duration_ns or None,
        smoothed_ns=smoothed_ns or None,
        median_ns=quantile_ns(counts, _MEDIAN),
        p99_ns=quantile_ns(counts, _P99),
        usual_p99_ns=quantile_ns(without_longest(counts, UNUSUAL), _P99),
        window=window,
        window_end=window_end,
        phase=text_of(phase),
        module=text_of(module),
        sampled_ns=sampled_ns,
        groups=tuple(_groups(groups)),
        histogram=tuple(counts),
        total_ns=memory[slot + TOTAL : slot + TOTAL + 8].cast("Q")[0],
        last=_figures(read_block(memory, slot, COUNTERS)),
        work=_work(read_block(memory, slot, WORK)),
        error=text_of(message) if error_ns else "",
        error_where=text_of(where) if error_ns else "",
        answer=_answer(read_block(memory, slot, ANSWER)),
    )


def read_position(page: Page, index: int) -> Position | None:
    """Returns where the rank of a slot is, for a tenth of the time of :func:`read_slot`; None where it is not known."""
    memory, slot = page.memory, slot_offset(index)
    progress, groups = (read_block(memory, slot, block) for block in (PROGRESS, GROUPS))
    if progress is None or groups is None or progress[4] not in State._value2member_map_:
        return None
    iteration, _, duration_ns, _, state, window, window_end = progress
    is_recorded = window > 0 or iteration >= window_end
    return Position(iteration, duration_ns or None, State(state), is_recorded, groups[0], tuple(_groups(groups[1:])))


def is_alive(found: RankInfo) -> bool:
    """Whether the process of a slot still runs."""
    return procfs.started_tick(found.pid) == found.started_tick


def _figures(values: tuple[Any, ...] | None) -> StepFigures:
    if values is None:
        return StepFigures()
    iteration, duration_ns, *phases_ns = values[: 2 + len(PHASES)]
    return StepFigures(iteration, duration_ns, tuple(phases_ns), *values[2 + len(PHASES) :])


def _work(values: tuple[Any, ...] | None) -> WindowWork:
    if values is None:
        return WindowWork()
    rows = (values[first : first + len(DeviceMacs._fields)] for first in range(3, len(values), len(DeviceMacs._fields)))
    macs = (DeviceMacs(text_of(name), threads, text_of(arithmetic), count) for name, threads, arithmetic, count in rows)
    window, mean_ns, devices = values[:3]
    return WindowWork(window, mean_ns, devices, tuple(row for row in macs if row.macs > 0))


def _groups(values: Sequence[Any]) -> Iterator[GroupProgress]:
    for first in range(0, len(values), len(GroupProgress._fields)):
        name, size, members, enqueued, completed = values[first : first + len(GroupProgress._fields)]
        if size:
            yield GroupProgress(text_of(name), size, members, enqueued, completed)


def _answer(values: tuple[int, int, int, int, bytes] | tuple[()] | None) -> Answer | None:
    if not values or not values[0]:
        return None
    number, accepted, window, iteration, reason = values
    return Answer(number, window, iteration, "" if accepted else text_of(reason) or "no reason is given")
