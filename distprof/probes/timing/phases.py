"""The phases of one iteration, as a user would time them with a stopwatch around each part of the loop.

The phase of an interval often depends on what follows, so intervals are recorded at once and named later.  Time between
a model's forward and the next forward or backward is outside of modules (a loss, the next batch, an environment, a
receive); after the last of them it is other time.  A wait for a batch belongs to evaluation when a forward without
gradient follows; so does the time between two such forwards.
"""

from __future__ import annotations

from distprof.probes.timing.timeline import Intervals, Timeline, Timestamps
from distprof.records import PHASES, TRAINING

DATA, FORWARD, OUTSIDE, BACKWARD, OPTIMIZER, EVALUATION, OTHER = (
    "data",
    "forward",
    "outside",
    "backward",
    "optimizer",
    "evaluation",
    "other",
)

_AFTER_FORWARD = "after forward"  # OUTSIDE if a backward or another forward follows
_AFTER_EVALUATION = "after evaluation"  # EVALUATION if more evaluation follows
_AFTER = {FORWARD: _AFTER_FORWARD, EVALUATION: _AFTER_EVALUATION}  # after all others: OTHER
_EVALUATION_DATA = "evaluation's data"  # DATA if a forward with gradient follows: a teacher reads training's batch


def phases_ns(intervals: Intervals, unseen: set[str]) -> dict[str, int]:
    """Returns the ns of each phase, once the timestamps can be read; phases that are ``unseen`` only with time."""
    return {phase: 0 for phase in PHASES if phase not in unseen} | intervals.sums_ns()


class PhaseClock:
    """Records the phases of one iteration, from its construction to :meth:`finish`.

    Phases nest (an optimizer's closure runs forward and backward; a gradient penalty runs backward inside forward): the
    innermost phase has the time, except that all time inside a forward is forward.
    """

    def __init__(self, timestamps: Timestamps) -> None:
        self.timeline = Timeline(timestamps, OTHER)
        self.waited_for_data = False
        self._open: list[str] = []
        self._host_ns = [] if timestamps.immediate else [timestamps.host_ns()]

    def enter(self, phase: str) -> None:
        if self._open and self._open[-1] in (FORWARD, EVALUATION):
            phase = self._open[-1]
        elif phase == DATA:
            self.waited_for_data = True
        self._settle(phase)
        self._open.append(phase)
        self._switch_to(phase)

    def leave(self) -> None:
        if not self._open:  # entered before this iteration began
            return
        phase = self._open.pop()
        self._switch_to(self._open[-1] if self._open else _AFTER.get(phase, OTHER))

    @property
    def running(self) -> str:
        """The innermost phase that runs, empty outside of all; another thread may ask."""
        return self._open[-1] if self._open else ""

    def finish(self) -> Intervals:
        """Ends the iteration and returns its intervals under their final names."""
        self._settle(OTHER)
        owners = self.timeline.owners
        while _EVALUATION_DATA in owners:
            owners[owners.index(_EVALUATION_DATA)] = EVALUATION
        intervals = self.timeline.finish()
        if not intervals.source.immediate:
            self._host_ns.append(intervals.source.host_ns())
        return intervals

    def unseen(self, mode: str) -> set[str]:
        """Returns the phases that nothing was seen of, and that may have taken time all the same."""
        unseen = set() if self.waited_for_data else {DATA}
        if mode == TRAINING:  # it has a forward and an optimizer's step: without time, no patch has seen them
            unseen |= {FORWARD, OPTIMIZER}
        return unseen

    def moments_ns(self, intervals: Intervals) -> list[int]:
        """Returns when each interval began and the last one ended, on the host's monotonic clock: what a device was
        given to do in an interval, it may do later.
        """
        return self._host_ns or list(intervals.timestamps)

    def _switch_to(self, phase: str) -> None:
        timeline = self.timeline  # switch_to in place: its frame has left the caches at each phase
        timeline.timestamps.append(timeline.source.now())
        timeline.owners.append(phase)
        if self._host_ns:
            self._host_ns.append(self.timeline.source.host_ns())

    def _settle(self, following: str) -> None:
        """Names the intervals that depend on ``following``, back to the last one whose phase is certain."""
        if following == DATA:
            return
        owners = self.timeline.owners
        batch_is_ours = following == FORWARD  # the last batch before a forward with gradient is training's
        for index in range(len(owners) - 1, -1, -1):
            owner = owners[index]
            if owner in (DATA, _EVALUATION_DATA):
                if batch_is_ours:
                    owners[index], batch_is_ours = DATA, False
                elif following == EVALUATION:
                    owners[index] = _EVALUATION_DATA
            elif owner == _AFTER_FORWARD:
                owners[index] = OUTSIDE if following in (FORWARD, BACKWARD) else OTHER
            elif owner == _AFTER_EVALUATION:
                owners[index] = EVALUATION if following == EVALUATION else OTHER
            elif owner in (FORWARD, BACKWARD, OPTIMIZER) or (owner == EVALUATION and not batch_is_ours):
                return
