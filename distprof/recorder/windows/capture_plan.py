"""The plan of a window: which iterations are counted, timed and traced."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distprof.config.settings import Settings
from distprof.errors import DistprofError
from distprof.records import Plan

#: The first iterations of a job before its first window, of which the phases are timed; those after it are quiet.
MOST_WARMUP = 10


class StepKind(Enum):
    """What is recorded in a step."""

    QUIET = "quiet"  # nothing but the optimizer hook that keeps the iteration number
    WARMUP = "warmup"  # the phases
    COUNTED = "counted"
    TIMED = "timed"
    TRACED = "traced"  # torch.profiler records it, on the ranks that were asked to
    DONE = "done"  # the window is complete


@dataclass(frozen=True)
class CapturePlan:
    """The iterations of one window: from number ``start`` on, ``counted`` ones, then ``settling`` and ``timed`` ones,
    both timed, then ``traced`` ones.
    """

    start: int
    counted: int
    timed: int
    settling: int = 0
    number: int = 0  # of the window
    traced: int = 0

    @property
    def end(self) -> int:
        """The number of the first iteration after the window."""
        return self._timed_end + self.traced

    @property
    def _timed_end(self) -> int:
        return self.start + self.counted + (self.settling + self.timed if self.timed else 0)

    def kind(self, iteration: int) -> StepKind:
        """Returns the kind of the iteration with this number (from 0)."""
        if iteration < self.start:
            return StepKind.WARMUP if iteration < MOST_WARMUP and self.number == 0 else StepKind.QUIET
        if iteration < self.start + self.counted:
            return StepKind.COUNTED
        if iteration < self._timed_end:
            return StepKind.TIMED
        return StepKind.TRACED if iteration < self.end else StepKind.DONE

    def record(self) -> Plan:
        """Returns the record of the plan."""
        return Plan(self.start, self.counted, self.timed, self.settling, self.number, self.traced)


def first_window(settings: Settings, world_size: int = 1) -> CapturePlan:
    """Returns the plan of a rank's first window."""
    return capture_plan(settings.warmup, settings.counted, settings.timed, world_size)


def capture_plan(
    start: int, counted: int, timed: int, world_size: int, number: int = 0, traced: int = 0
) -> CapturePlan:
    """Returns the plan of a window.  Counting takes longer on some ranks, and in the next iteration the others wait for
    them in collectives: with several ranks, this iteration is timed for settling only.
    """
    settles = world_size > 1 and counted > 0 and timed > 0
    return CapturePlan(start, counted, timed, int(settles), number, traced)


class WindowRefused(DistprofError):
    """A further window that cannot be recorded as it was asked for."""
