"""The step clock: finds iterations in the events of a job, whatever its loop looks like, and says what kind each step
is.

**Training.**  An iteration ends when the *closing* optimizer has stepped: of all optimizers in use, the one met last (a
GAN's second, whose step completes the cycle).  It began where the one before ended, so data wait and gradient
accumulation are inside.  Until the last optimizer is met, what were taken for iterations are parts of one: the window
begins again then, and the later record of an iteration holds.

**By hand.**  Where no optimizer of torch steps, and yet the gradients of one backward are gone before the next, an
iteration ends with the backward before such an update.  Should an optimizer step after all, it is training as above.

**Forward.**  While no optimizer has stepped, an iteration ends with each forward of a model.  A forward with gradient
may be the beginning of training, so the clock waits a while for the optimizer before it takes such a job for one
without; in a pipeline, whose first stage may run all micro-batches forward before any backward, as long as it takes.
If one steps after all (Lightning tries the evaluation first), that was the end of training's first iteration: nobody
saw it begin, so it is none to be recorded.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from enum import Enum

from distprof.config.settings import Settings
from distprof.records import FORWARD, TRAINING

#: Forwards with gradient that are waited for a first optimizer step, when the job has run no backward, and when it has
#: (gradient accumulation).
PATIENCE_WITHOUT_BACKWARD = 4
PATIENCE_WITH_BACKWARD = 64
#: Steps of another optimizer that are waited for the closing one: WGAN's critic takes up to 100 a generator's step.
PATIENCE_FOR_CLOSING = 128
#: Times that further optimizers are met and close the iterations from there on.
MOST_LATE = 8


class StepKind(Enum):
    """What is attached in a step."""

    QUIET = "quiet"  # nothing but the optimizer hook that keeps the iteration number
    COUNTED = "counted"
    TIMED = "timed"
    DONE = "done"  # the window is full


class Boundary(Enum):
    """What an event means for the running iteration."""

    NONE = "none"  # it goes on
    END = "end"  # it is complete
    RESTART = "restart"  # it was no iteration of this job: one begins now


@dataclass(frozen=True)
class CapturePlan:
    """``warmup`` quiet iterations, then ``counted``, then ``settling``, timed as well, and ``timed``."""

    warmup: int
    counted: int
    timed: int
    settling: int = 0

    def kind(self, iteration: int) -> StepKind:
        """What kind the iteration with this number (from 0) is."""
        if iteration < self.warmup:
            return StepKind.QUIET
        if iteration < self.warmup + self.counted:
            return StepKind.COUNTED
        timed = self.settling + self.timed if self.timed else 0
        return StepKind.TIMED if iteration < self.warmup + self.counted + timed else StepKind.DONE


def window_of(settings: Settings, world_size: int = 1) -> CapturePlan:
    """Of a rank among so many.  Counting takes some of them longer than others, and the collectives of the iteration
    behind it are where they wait for each other: that one settles.
    """
    settles = world_size > 1 and settings.count and settings.timed > 0
    return CapturePlan(settings.warmup, settings.counted, settings.timed, settling=int(settles))


class StepClock:
    """Numbers the iterations of one job, from 0 in each mode."""

    def __init__(self, window: CapturePlan) -> None:
        self.window = window
        self.mode = FORWARD
        self.iteration = 0  # the number of the running one
        self._optimizers = _Optimizers()
        self._forwards = 0  # in the running iteration, while no optimizer has stepped
        self._hopeful = 0  # forwards with gradient, while no optimizer has stepped
        self._backward_seen = False
        self._pipelined = False
        self._no_optimizer = False  # forwards have been taken for iterations
        self.is_manual = False  # iterations end with a backward: no optimizer of torch makes the updates

    @property
    def kind(self) -> StepKind:
        """The kind of the running iteration."""
        return self.window.kind(self.iteration)

    def backward_began(self) -> None:
        self._backward_seen = True

    def pipeline_seen(self) -> None:
        """A model is a pipeline's stage, which may run all its micro-batches forward before it runs one backward."""
        self._pipelined = True

    def training_started_unseen(self) -> None:
        """Training goes on already, and an optimizer is about to have stepped."""
        self._no_optimizer = True

    @property
    def backward_seen(self) -> bool:
        return self._backward_seen

    def forward_ended(self, with_gradient: bool) -> Boundary:
        """The forward of a model has ended."""
        if self.mode == TRAINING:
            return Boundary.NONE
        self._forwards += 1
        self._hopeful += with_gradient
        patience = PATIENCE_WITH_BACKWARD if self._backward_seen else PATIENCE_WITHOUT_BACKWARD
        if with_gradient and (self._hopeful <= patience or self._pipelined):
            return Boundary.NONE
        self._no_optimizer = True
        several, self._forwards = self._forwards > 1, 0
        return Boundary.RESTART if several else self._end()

    def manual_update(self, updates: int) -> Boundary:
        """A backward has ended, the last one before the parameters are updated without any optimizer of torch, which
        has happened ``updates`` times.
        """
        if self.is_manual:
            return self._end()
        if self.mode == TRAINING:
            return Boundary.NONE
        self.mode, self.is_manual = TRAINING, True
        self.iteration = min(updates, self.window.warmup)
        return Boundary.RESTART

    def optimizer_stepped(self, optimizer: object) -> Boundary:
        """An optimizer has stepped; it is not kept alive."""
        boundary = self._optimizers.stepped(optimizer)
        if self.mode == FORWARD or self.is_manual:
            self.mode = TRAINING
            if self._no_optimizer or self.is_manual:
                self.is_manual = False
                self.iteration = min(1, self.window.warmup)
                return Boundary.RESTART
        if boundary is Boundary.RESTART:
            self.iteration = min(self.iteration, self.window.warmup)
        return self._end() if boundary is Boundary.END else boundary

    def _end(self) -> Boundary:
        self.iteration += 1
        return Boundary.END


@dataclass
class _Met:
    """An optimizer in use; not kept alive."""

    reference: weakref.ref[object]
    cycle: int = 0
    steps: int = 0  # in that cycle


class _Optimizers:
    """The optimizers in use; the last one closes the iteration.  One that is gone, or idle for long, does not."""

    def __init__(self) -> None:
        self._met: dict[int, _Met] = {}  # by id, in the order in which they were met
        self._cycle = 0
        self._late = 0  # times that another one was met behind steps of those that are known
        self._known_stepped = False

    def stepped(self, optimizer: object) -> Boundary:
        """END: a cycle is complete.  RESTART: what were taken for cycles were none."""
        met = self._met.get(id(optimizer))
        if met is None or met.reference() is not optimizer:
            return self._meet(optimizer)
        self._known_stepped = True
        if self._closing() is met:
            self._cycle += 1
            return Boundary.END
        if met.cycle != self._cycle:
            met.cycle, met.steps = self._cycle, 0
        met.steps += 1
        if met.steps <= PATIENCE_FOR_CLOSING:
            return Boundary.NONE
        idle, closing = self._met.popitem()
        self._met = {idle: closing, **self._met}
        self._cycle += 1
        return Boundary.RESTART

    def _meet(self, optimizer: object) -> Boundary:
        """One that is made anew in every iteration closes none: it is passed over after a while."""
        self._met.pop(id(optimizer), None)
        self._met = {key: met for key, met in self._met.items() if met.reference() is not None}
        met = _Met(weakref.ref(optimizer), self._cycle)
        if not self._met:
            self._met[id(optimizer)] = met
            self._cycle += 1
            return Boundary.END
        self._late += self._known_stepped
        self._known_stepped = False
        if self._late > MOST_LATE:
            self._met = {id(optimizer): met, **self._met}
            return Boundary.NONE
        self._met[id(optimizer)] = met
        return Boundary.RESTART

    def _closing(self) -> _Met:
        """The last one that is not gone."""
        while (last := self._met[next(reversed(self._met))]).reference() is None:
            self._met.popitem()
        return last
