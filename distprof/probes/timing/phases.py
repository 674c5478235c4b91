"""The phases of one iteration, as a user would time them with a stopwatch around each part of the loop.

What a stretch of time was can often be said only by what follows it, so turns are taken at once and named later: the
time between a model's forward and the next one or the backward is outside of modules (a loss, the next batch, an
environment, a receive), but after the last of them it is anything else; a batch that was waited for is evaluation's
when a forward without gradient follows; so is what happens between two such forwards.
"""

from __future__ import annotations

from distprof.probes.timing.timeline import Intervals, Timeline, Timestamps

DATA, FORWARD, OUTSIDE, BACKWARD, OPTIMIZER, EVALUATION, OTHER = (
    "data",
    "forward",
    "outside",
    "backward",
    "optimizer",
    "evaluation",
    "other",
)

_AFTER_FORWARD = "after forward"  # outside of modules, if a backward or another forward follows
_AFTER_EVALUATION = "after evaluation"  # evaluation's, if more evaluation follows
_AFTER = {FORWARD: _AFTER_FORWARD, EVALUATION: _AFTER_EVALUATION}  # whatever else: OTHER
_EVALUATION_DATA = "evaluation's data"  # a teacher's forward without gradient reads training's batch, though


class PhaseClock:
    """Phases of one iteration, from its construction to :meth:`take`.

    Phases nest (an optimizer's closure runs forward and backward; a gradient penalty runs backward inside forward): the
    innermost holds the time, but what runs inside a forward is forward.
    """

    def __init__(self, stamps: Timestamps) -> None:
        self.ledger = Timeline(stamps, OTHER)
        self.waited_for_data = False
        self._open: list[str] = []

    def enter(self, phase: str) -> None:
        if self._open and self._open[-1] in (FORWARD, EVALUATION):
            phase = self._open[-1]
        elif phase == DATA:
            self.waited_for_data = True
        self._settle(phase)
        self._open.append(phase)
        self.ledger.turn(phase)

    def leave(self) -> None:
        if not self._open:  # entered before this iteration began
            return
        phase = self._open.pop()
        self.ledger.turn(self._open[-1] if self._open else _AFTER.get(phase, OTHER))

    def take(self) -> Intervals:
        """The iteration ends now: its turns, under their final names."""
        self._settle(OTHER)
        owners = self.ledger.owners
        while _EVALUATION_DATA in owners:
            owners[owners.index(_EVALUATION_DATA)] = EVALUATION
        return self.ledger.end()

    def _settle(self, following: str) -> None:
        """Name the turns, back to the last one of known nature, that only ``following`` explains."""
        if following == DATA:
            return
        owners = self.ledger.owners
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
