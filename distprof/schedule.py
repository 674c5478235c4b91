"""The step clock: finds iterations in the events of a job, whatever its loop looks like, and says what kind each step
is.

**Training.**  An iteration ends when the *closing* optimizer has stepped: of all optimizers seen, the one seen last (a
GAN's second, whose step completes the cycle).  It began where the one before ended, so data wait and gradient
accumulation are inside.

**Forward.**  While no optimizer has stepped, an iteration ends with each forward of a model.  A forward with gradient
may be the beginning of training, so the clock waits a while for the optimizer before it takes such a job for one
without.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distprof.records import FORWARD, TRAINING

#: Forwards with gradient that are waited for a first optimizer step, when the job has run no backward, and when it has
#: (gradient accumulation).
PATIENCE_WITHOUT_BACKWARD = 4
PATIENCE_WITH_BACKWARD = 64


class Kind(Enum):
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
class Window:
    """``warmup`` quiet iterations, then ``counted``, then ``timed``."""

    warmup: int
    counted: int
    timed: int

    def kind(self, iteration: int) -> Kind:
        """What kind the iteration with this number (from 0) is."""
        if iteration < self.warmup:
            return Kind.QUIET
        if iteration < self.warmup + self.counted:
            return Kind.COUNTED
        return Kind.TIMED if iteration < self.warmup + self.counted + self.timed else Kind.DONE


class StepClock:
    """Numbers the iterations of one job, from 0 in each mode."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.mode = FORWARD
        self.iteration = 0  # the number of the running one
        self._optimizers: list[int] = []  # ids, in the order of their first steps
        self._hopeful = 0  # forwards with gradient, while no optimizer has stepped
        self._backward_seen = False
        self._no_optimizer = False  # forwards have been taken for iterations

    @property
    def kind(self) -> Kind:
        """The kind of the running iteration."""
        return self.window.kind(self.iteration)

    def backward_began(self) -> None:
        self._backward_seen = True

    def forward_ended(self, with_gradient: bool) -> Boundary:
        """The forward of a model has ended."""
        if self.mode == TRAINING:
            return Boundary.NONE
        if with_gradient:
            self._hopeful += 1
            patience = PATIENCE_WITH_BACKWARD if self._backward_seen else PATIENCE_WITHOUT_BACKWARD
            if self._hopeful <= patience:
                return Boundary.NONE
        first_of_many = with_gradient and not self._no_optimizer
        self._no_optimizer = True
        if first_of_many:  # what ran so far held several forwards
            return Boundary.RESTART
        self.iteration += 1
        return Boundary.END

    def optimizer_stepped(self, optimizer: int) -> Boundary:
        """The optimizer with this id has stepped."""
        if self.mode == FORWARD:
            self.mode = TRAINING
            self._optimizers.append(optimizer)
            if self._no_optimizer:  # a look at the model before training: training's iterations begin here
                self.iteration = 0
                return Boundary.RESTART
        if optimizer not in self._optimizers:
            self._optimizers.append(optimizer)
        if optimizer != self._optimizers[-1]:
            return Boundary.NONE
        self.iteration += 1
        return Boundary.END
