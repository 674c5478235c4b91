"""The long turns of one step, and the record of its timeline.

A turn is the time from one event of a module to the next.  Merging needs the long ones alone, in which a thread may
have waited; they are few, so nothing is lost of a step with many thousand turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from distprof.probes.timing.call_orders import CallOrder
from distprof.records import LIMIT, NO_ROW, PHASES, Array, Timeline

_NUMBERS = {phase: number for number, phase in enumerate(PHASES)}
_DTYPES = ("<i4", "<i8", "<i8", "<i8")
_NO_TURNS: tuple[Array, ...] = tuple(np.zeros(0, dtype) for dtype in _DTYPES)
DEVICE_TIMES = "modules are timed by a device's events, which are not on the host's clock"


@dataclass
class LongTurns:
    """Collects the long turns of one step, whose turns come in one piece or more."""

    _found: list[tuple[int, int, int, int]] = field(default_factory=list)  # owner, number, start, end
    _turns_before: dict[int, int] = field(default_factory=dict)  # of each owner, in earlier pieces

    def add(self, order: CallOrder, long: Sequence[int], moments_ns: Sequence[int], *, last: bool) -> None:
        """Adds turns, of which those with the numbers ``long`` are long: ``order.listed[i]`` had the time from
        ``moments_ns[i]`` to ``moments_ns[i + 1]``, on the host's monotonic clock.  ``last``: no other piece follows.
        """
        for place in long:
            owner = order.listed[place]
            number = order.turn_numbers[place] + self._turns_before.get(owner, 0)
            self._found.append((owner if owner < LIMIT else NO_ROW, number, moments_ns[place], moments_ns[place + 1]))
        if not last:
            for owner, turns in order.turns_by_owner.items():
                self._turns_before[owner] = self._turns_before.get(owner, 0) + turns

    def columns(self) -> tuple[Array, ...]:
        """Returns owner (a row, ``~row`` or NO_ROW), number, start and end of each long turn, in order."""
        if not self._found:
            return _NO_TURNS
        columns = zip(*self._found, strict=True)
        return tuple(np.array(column, dtype) for column, dtype in zip(columns, _DTYPES, strict=True))


@lru_cache(maxsize=16)
def _numbers(phases: tuple[str, ...]) -> Array:
    """Returns the numbers of a step's phases: most steps have the same ones."""
    numbers: Array = np.array([_NUMBERS[phase] for phase in phases], "<i4")
    numbers.flags.writeable = False
    return numbers


def timeline_record(
    iteration: int,
    mode: str,
    phases: Sequence[str],
    moments_ns: Sequence[int],
    turns: LongTurns | None,
    *,
    window: int = 0,
) -> Timeline:
    """Returns the record of a step whose phase ``phases[i]`` ran from ``moments_ns[i]`` to ``moments_ns[i + 1]``;
    ``turns`` is None where they are timed by a device.
    """
    owner, number, start_ns, end_ns = (turns or LongTurns()).columns()
    return Timeline(
        iteration,
        mode,
        start_ns=moments_ns[0],
        end_ns=moments_ns[-1],
        phase_names=PHASES,
        phase=_numbers(tuple(phases)),
        phase_start_ns=np.array(moments_ns[:-1], "<i8"),
        turn_owner=owner,
        turn_number=number,
        turn_start_ns=start_ns,
        turn_end_ns=end_ns,
        unseen="" if turns is not None else DEVICE_TIMES,
        window=window,
    )
