"""The collectives of a synthetic job, and the timelines of its steps.

    a step's times by module and phase -> when each module had its turn -> what was enqueued in backward

All ranks of a step begin together, and enqueue their collectives evenly over the own time of their backward.  The last
turn of backward is the wait for the slowest rank: it ends at the same moment on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distprof.records import (
    LONG_TURN_NS,
    NO_ROW,
    PHASES,
    TRAINING_THREAD,
    Collectives,
    CollectiveWindow,
    Group,
    Record,
    Step,
    Timeline,
)

#: From the own times of the slowest rank to the end of backward: what the last collective takes, and what ranks differ.
MARGIN_NS = 10_000_000
_BYTES = 4_000_000


def collective_window() -> CollectiveWindow:
    """Returns how a rank saw its collectives, in one group of all ranks."""
    return CollectiveWindow(groups=(Group("0", "default", ()),), source="flight recorder", message_source="patches")


def with_collectives(step: Step, number: int, start_ns: int, until_ns: int, waits_ns: int) -> Sequence[Record]:
    """Returns a step that enqueues ``number`` collectives, with its timeline and collectives.

    The step begins at ``start_ns`` on the rank's monotonic clock, and its backward ends ``until_ns`` later, unless its
    own times are longer: the time until then is added to the backward of the outermost module, which has ``waits_ns``
    of waiting already.
    """
    before = sum(step.phases_ns[phase] for phase in ("data", "forward", "outside"))
    backward = step.backward_ns.copy()
    backward[0] -= waits_ns
    own = int(backward.sum())
    backward[0] += max(until_ns - before - own, 0)
    phases = step.phases_ns | {"backward": int(backward.sum())}
    step = replace(step, backward_ns=backward, phases_ns=phases, duration_ns=sum(phases.values()))
    enqueued_ns = start_ns + before + own * np.arange(1, number + 1) // number
    return step, _timeline(step, start_ns), _collectives(step.iteration, step.mode, enqueued_ns)


def _timeline(step: Step, start_ns: int) -> Timeline:
    lengths = [step.phases_ns[phase] for phase in PHASES]
    starts = start_ns + np.cumsum([0, *lengths[:-1]])
    begin = dict(zip(PHASES, starts.tolist(), strict=True))
    rows = np.arange(len(step.forward_ns))
    forward = begin["forward"] + np.cumsum(step.forward_ns)
    backward = begin["backward"] + np.cumsum(step.backward_ns[::-1])
    optimizer = step.phases_ns["optimizer"]
    owner = np.concatenate([rows, ~rows[::-1], [NO_ROW]])
    end = np.concatenate([forward, backward, [begin["optimizer"] + optimizer]])
    length = np.concatenate([step.forward_ns, step.backward_ns[::-1], [optimizer]])
    kept = length >= LONG_TURN_NS
    return Timeline(
        step.iteration, step.mode, start_ns=start_ns, end_ns=start_ns + step.duration_ns, phase_names=PHASES,
        phase=np.arange(len(PHASES), dtype=np.int32), phase_start_ns=starts,
        turn_owner=owner[kept].astype(np.int32), turn_number=np.zeros(int(kept.sum()), np.int64),
        turn_start_ns=(end - length)[kept], turn_end_ns=end[kept],
    )  # fmt: skip


def _collectives(iteration: int, mode: str, enqueued_ns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Collectives:
    number = len(enqueued_ns)
    zeros, size = np.zeros(number, np.int32), np.full(number, _BYTES)
    return Collectives(
        iteration, mode, group_names=("0",), ops=("all_reduce",), group=zeros, op=zeros, tag=zeros,
        number=iteration * number + np.arange(number), enqueued_ns=enqueued_ns, input_bytes=size, output_bytes=size,
        peer=np.full(number, -1, np.int32), thread=np.full(number, TRAINING_THREAD, np.int32),
    )  # fmt: skip
