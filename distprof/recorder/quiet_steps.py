"""Counts the steps of an optimizer while nothing is recorded, by a short way.

Code that runs once in an iteration is in no cache of the processor: what it touches decides what it costs, and the long
way, which can handle any step in any iteration, touches much.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch

from distprof.recorder.heartbeat import Heartbeat
from distprof.recorder.step_clock import StepClock


class QuietSteps:
    """Counts the steps of the one optimizer in use, and writes the heartbeat of the iterations that they begin."""

    __slots__ = ("_answer", "_end", "_heartbeat", "_optimizer", "_steps", "_until")

    def __init__(
        self,
        steps: StepClock,
        optimizer: weakref.ref[object],
        heartbeat: Heartbeat | None,
        end: Callable[[], None],
        answer: Callable[[], None],
    ) -> None:
        """``end`` is called instead of a heartbeat where the iteration that begins may not be quiet, ``answer`` where
        there may be a request.
        """
        self._steps = steps
        self._optimizer = optimizer
        self._until = steps.quiet_until
        self._heartbeat = heartbeat
        self._end = end
        self._answer = answer

    def stepped(self, optimizer: torch.optim.Optimizer) -> bool:
        """Ends an iteration.  Returns False for a step that has to go the long way."""
        if optimizer is not self._optimizer() or torch._C._current_graph_task_id() != -1:
            return False
        steps = self._steps
        steps.iteration = iteration = steps.iteration + 1
        if iteration >= self._until or steps.planned is not None:  # read after the iteration is counted
            self._end()
        elif self._heartbeat is not None and self._heartbeat.iteration_follows(iteration):
            self._answer()
        return True
