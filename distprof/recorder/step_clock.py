"""The step clock: finds iterations in the events of any training loop, and decides the kind of each step.

**Training.**  An iteration ends when the *closing* optimizer has stepped: the optimizer in use that was first seen last
(a GAN's second one, whose step completes the cycle).  It begins where the iteration before ended, so that data wait and
gradient accumulation are inside.  When another optimizer is first seen, the iterations so far were parts of one: the
window begins again, and the later record of an iteration is valid.  A window that is complete does not begin again.

**Manual updates.**  If no torch optimizer steps, but the gradients of one backward are gone before the next, an
iteration ends with the backward before such an update.  If an optimizer steps later, training as above applies.

**Forward.**  While no optimizer has stepped, an iteration ends with each forward of a model.  A forward with gradient
may be the beginning of training, so the clock waits some forwards for an optimizer before it decides that the job has
none; in a pipeline, whose first stage may run all micro-batches forward before any backward, it waits without limit.
If an optimizer steps later (Lightning runs evaluation first), its step ends training's first iteration, which is not
recorded because its beginning was not seen.
"""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass, replace
from enum import Enum

from distprof.recorder.windows.capture_plan import CapturePlan, StepKind, WindowRefused
from distprof.records import FORWARD, TRAINING

#: Forwards with gradient before the clock stops waiting for a first optimizer step, without and with a backward so far
#: (gradient accumulation).
PATIENCE_WITHOUT_BACKWARD = 4
PATIENCE_WITH_BACKWARD = 64
#: Steps of one optimizer before the clock stops waiting for the closing one: WGAN's critic takes up to 100 a step.
PATIENCE_FOR_CLOSING = 128
#: How often a newly seen optimizer may become the closing one.
MOST_LATE = 8


class Boundary(Enum):
    """The effect of an event on the running iteration."""

    NONE = "none"  # it goes on
    END = "end"  # it is complete
    RESTART = "restart"  # it was not an iteration of this job: one begins now


class StepClock:
    """Numbers the iterations of one job, from 0 in each mode."""

    def __init__(self, window: CapturePlan, every: int = 0) -> None:
        """``every``: windows like the first one come back after so many iterations; 0: they do not."""
        self.window = window
        self._every = every
        self.planned: CapturePlan | None = None  # a further window; another thread may set it
        self.backward_seen = False
        self.mode = FORWARD
        self.iteration = 0  # the number of the running one
        self._optimizers = _Optimizers()
        self._forwards = 0  # in the running iteration, while no optimizer has stepped
        self._gradient_forwards = 0  # forwards with gradient, while no optimizer has stepped
        self._pipelined = False
        self._no_optimizer = False  # forwards count as iterations
        self.restarts = 0  # how often iterations have begun again: those before were none
        self.is_manual = False  # iterations end with a backward: no torch optimizer makes the updates

    @property
    def kind(self) -> StepKind:
        """The kind of the running iteration."""
        return self.window.kind(self.iteration)

    def plan_window(self, plan: CapturePlan) -> None:
        """Plans a further window, from any thread; :meth:`next_window` hands it to the thread that trains.

        Raises WindowRefused if its start has passed, or the window before it still runs or waits.
        """
        if self._every:
            raise WindowRefused(f"the windows of this run come back by themselves, every {self._every} iterations")
        if self.planned is not None:
            raise WindowRefused(
                f"window {self.planned.number} is planned already, from iteration {self.planned.start} on"
            )
        if plan.start < self.window.end:
            raise WindowRefused(
                f"iteration {plan.start} is taken: window {self.window.number} ends before iteration {self.window.end}"
            )
        self.planned = plan  # set before the iteration is read: what is not late here is seen at the next boundary
        running = self.iteration
        if plan.start <= running and self.planned is plan:
            self.planned = None
            raise WindowRefused(f"iteration {plan.start} has passed: iteration {running} is running")

    def next_window(self) -> CapturePlan | None:
        """Begins the planned window, if there is one and the window before it is over; returns its plan."""
        if self.kind is not StepKind.DONE:
            return None
        plan = self._returning() if self._every else self.planned
        if plan is None or plan.start < self.iteration:
            return None
        self.window, self.planned = plan, None
        return plan

    def _returning(self) -> CapturePlan:
        """Returns the plan of the next window that comes back; all ranks find the same ones."""
        first = self.window.start - self.window.number * self._every
        number = -((first - self.iteration) // self._every)
        return replace(self.window, start=first + number * self._every, number=number)

    def backward_began(self) -> None:
        self.backward_seen = True

    def pipeline_seen(self) -> None:
        """Expects a pipeline stage, which may run all its micro-batches forward before its first backward."""
        self._pipelined = True

    def training_started_unseen(self) -> None:
        """Expects that training has begun unseen, and that the running optimizer step ends an iteration."""
        self._no_optimizer = True

    @property
    def optimizers(self) -> list[object]:
        """Returns the optimizers in use that still exist."""
        return self._optimizers.living()

    @property
    def only_optimizer(self) -> weakref.ref[object] | None:
        """The optimizer in use, if each of its steps ends an iteration; None if there are several, or none."""
        return None if self.mode == FORWARD or self.is_manual else self._optimizers.only()

    @property
    def quiet_until(self) -> int:
        """The number of the next iteration in which something is recorded or prepared; 0 if that is the running one."""
        if self.kind is StepKind.DONE:
            return sys.maxsize
        return self.window.start - 1 if self.kind is StepKind.QUIET else 0

    def forward_ended(self, with_gradient: bool) -> Boundary:
        """Handles the end of a model's forward."""
        if self.mode == TRAINING:
            return Boundary.NONE
        self._forwards += 1
        self._gradient_forwards += with_gradient
        patience = PATIENCE_WITH_BACKWARD if self.backward_seen else PATIENCE_WITHOUT_BACKWARD
        if with_gradient and (self._gradient_forwards <= patience or self._pipelined):
            return Boundary.NONE
        self._no_optimizer = True
        several, self._forwards = self._forwards > 1, 0
        return self._restart() if several else self._end()

    def manual_update(self, updates: int) -> Boundary:
        """Handles the end of the last backward before a manual update of the parameters; ``updates`` are the manual
        updates so far.
        """
        if self.is_manual:
            return self._end()
        if self.mode == TRAINING:
            return Boundary.NONE
        self.mode, self.is_manual = TRAINING, True
        self.iteration = min(updates, self.window.start)
        return self._restart()

    def optimizer_stepped(self, optimizer: object) -> Boundary:
        """Handles a step of an optimizer, which is not kept alive."""
        boundary = self._optimizers.stepped(optimizer)
        if self.mode == FORWARD or self.is_manual:
            self.mode = TRAINING
            if self._no_optimizer or self.is_manual:
                self.is_manual = False
                self.iteration = min(1, self.window.start)
                return self._restart()
        if boundary is Boundary.RESTART and self.kind is StepKind.DONE:
            return Boundary.NONE  # a window that is complete does not begin again
        if boundary is Boundary.RESTART:
            self.iteration = min(self.iteration, self.window.start)
            return self._restart()
        return self._end() if boundary is Boundary.END else boundary

    def _restart(self) -> Boundary:
        self.restarts += 1
        return Boundary.RESTART

    def _end(self) -> Boundary:
        self.iteration += 1
        return Boundary.END


@dataclass
class _KnownOptimizer:
    """An optimizer in use, which is not kept alive."""

    reference: weakref.ref[object]
    cycle: int = 0
    steps: int = 0  # in that cycle


class _Optimizers:
    """Tracks the optimizers in use; the last one closes the iteration, unless it is deleted or idle for long."""

    def __init__(self) -> None:
        self._known: dict[int, _KnownOptimizer] = {}  # by id, in the order in which they were first seen
        self._cycle = 0
        self._additions = 0  # new optimizers after steps of the known ones
        self._known_one_stepped = False

    def stepped(self, optimizer: object) -> Boundary:
        """Handles a step.  Returns END if a cycle is complete, RESTART if the earlier cycles were parts of one."""
        known = self._known.get(id(optimizer))
        if known is None or known.reference() is not optimizer:
            return self._add(optimizer)
        self._known_one_stepped = True
        if self._closing() is known:
            self._cycle += 1
            return Boundary.END
        if known.cycle != self._cycle:
            known.cycle, known.steps = self._cycle, 0
        known.steps += 1
        if known.steps <= PATIENCE_FOR_CLOSING:
            return Boundary.NONE
        idle, closing = self._known.popitem()
        self._known = {idle: closing, **self._known}
        self._cycle += 1
        return Boundary.RESTART

    def _add(self, optimizer: object) -> Boundary:
        """Adds an optimizer; after some, new ones do not close iterations: a script may create one in each."""
        self._known.pop(id(optimizer), None)
        self._known = {key: known for key, known in self._known.items() if known.reference() is not None}
        known = _KnownOptimizer(weakref.ref(optimizer), self._cycle)
        if not self._known:
            self._known[id(optimizer)] = known
            self._cycle += 1
            return Boundary.END
        self._additions += self._known_one_stepped
        self._known_one_stepped = False
        if self._additions > MOST_LATE:
            self._known = {id(optimizer): known, **self._known}
            return Boundary.NONE
        self._known[id(optimizer)] = known
        return Boundary.RESTART

    def living(self) -> list[object]:
        """Returns the optimizers that still exist."""
        return [optimizer for known in self._known.values() if (optimizer := known.reference()) is not None]

    def only(self) -> weakref.ref[object] | None:
        """Returns the optimizer in use, if there is only one."""
        return next(iter(self._known.values())).reference if len(self._known) == 1 else None

    def _closing(self) -> _KnownOptimizer:
        """Returns the last optimizer that still exists."""
        while (last := self._known[next(reversed(self._known))]).reference() is None:
            self._known.popitem()
        return last
