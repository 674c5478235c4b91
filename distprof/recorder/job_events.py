"""What patches, hooks and probes call as the job runs: each event goes to the running probe and to the step clock."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from distprof.clock import Clock
from distprof.frameworks.shape_inference import ShapeInference
from distprof.hooks.patches import OnError
from distprof.model.module_tree import ModuleTree
from distprof.model.uncalled import find_uncalled_models
from distprof.module_walk import parameters_in
from distprof.probes.counting.dispatch_stack import drop_abandoned_modes
from distprof.recorder.manual_updates import ManualUpdates
from distprof.recorder.probe_switch import ProbeSwitch
from distprof.recorder.quiet_steps import QuietSteps
from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import Boundary, StepClock
from distprof.recorder.updates import Updates
from distprof.records import FORWARD


class JobEvents:
    """Turns the events of a job into boundaries of its iterations."""

    def __init__(
        self,
        rank: RecordedRank,
        steps: StepClock,
        clock: Clock,
        become_rank: Callable[[nn.Module], bool],
        on_boundary: Callable[[Boundary], None],
        on_error: OnError,
    ) -> None:
        """``become_rank`` gets the first model of this process; it returns whether the process is a rank now."""
        self.thread: int | None = None  # the thread that ran the first model
        self.quiet_steps: QuietSteps | None = None  # handles optimizer steps while nothing is recorded
        self.probes = ProbeSwitch(self, clock, on_error)
        self._rank = rank
        self._steps = steps
        self._become_rank = become_rank
        self._on_boundary = on_boundary
        self._on_error = on_error
        self._updates = Updates(
            self._update_completed, self._outer_began, self._outer_ended, self.probes.is_watching_models, on_error
        )
        self._manual_updates = ManualUpdates()
        self._shape_inference = ShapeInference(self._shape_inference_began, self._shape_inference_ended, on_error)
        self._in_shape_inference = False
        self._model_was_called = False  # also before this process was a rank
        self._searched_optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def close(self) -> None:
        """Removes the patches of frameworks' functions."""
        self.ignore_shape_inference()
        self._updates.close()

    def ignore_shape_inference(self) -> None:
        """Removes the patches for shape inference; the next model that is seen puts them back."""
        self._shape_inference.close()

    @property
    def backward_ends_iterations(self) -> bool:
        """Whether iterations end with a backward, so that it must be seen in quiet steps, too."""
        return self._updates.are_in_backward or self._steps.is_manual

    @property
    def may_be_quiet(self) -> bool:
        """Whether optimizer steps are all that is seen, and each is an update of its own."""
        return self.probes.is_unwatched and self.probes.probe is None and self._updates.are_plain

    # ---- models, as the model watch and the probes see them --------------------------------------------------------

    @property
    def tree(self) -> ModuleTree:
        return self._rank.tree

    @property
    def mode(self) -> str:
        """records.TRAINING once an optimizer has stepped; before, forwards with gradient may belong to training."""
        return self._steps.mode

    @property
    def updates_follow(self) -> bool:
        return self._steps.is_manual

    def adopt(self, module: nn.Module, caller: int) -> int:
        return self._rank.adopt(module, caller)

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        return self._rank.model_of(parameters)

    def model_began(self, module: nn.Module) -> None:
        """Begins a model's forward; a lazy model, which gets its shapes in it, is adopted at its next forward."""
        self._model_was_called = True
        self._shape_inference.open()
        if self._shape_inference.running():
            return
        self._updates.model_begins()
        rank = self._rank
        if rank.output is None:
            rank.writing += 1
            if rank.models is None and not _has_lazy(module) and self._become_rank(module):
                self._on_boundary(Boundary.RESTART)
            rank.writing -= 1
        elif rank.tree.find(module, -1) is None and not _has_lazy(module):
            rank.adopt(module, -1)

    def model_ended(self, with_gradient: bool) -> None:
        """Ends a model's forward, with any probe."""
        if self._rank.output is not None and not self._shape_inference.running():
            self._rank.writing += 1
            self._on_boundary(self._steps.forward_ended(with_gradient))
            self._rank.writing -= 1

    def _shape_inference_began(self) -> None:
        self._in_shape_inference = True
        self.probes.instruments.pause()

    def _shape_inference_ended(self) -> None:
        self._in_shape_inference = False
        self.probes.instruments.resume()

    # ---- backward --------------------------------------------------------------------------------------------------

    def begin(self, args: tuple[Any, ...]) -> None:
        """Begins a backward, on any thread; ``args`` are those of autograd's engine: the fourth is create_graph."""
        drop_abandoned_modes()
        self._updates.backward_began()
        if self._in_shape_inference:
            return
        self._steps.backward_began()
        if self._looks_for_updates and self._updates.backwards == 1:
            self._manual_updates.backward_began()
        if self.probes.probe is not None:
            self.probes.probe.backward_began(create_graph=len(args) > 3 and bool(args[3]))

    def end(self) -> None:
        """Ends a backward."""
        if not self._in_shape_inference and self.probes.probe is not None:
            self.probes.probe.backward_ended()
        self._updates.backward_ended()
        if self._looks_for_updates and not self._in_shape_inference and not self._updates.backwards:
            self._look_for_update()

    @property
    def _looks_for_updates(self) -> bool:
        """Whether to look for updates that no torch optimizer makes."""
        return self._rank.output is not None and (self._steps.mode == FORWARD or self._steps.is_manual)

    def _look_for_update(self) -> None:
        if self._manual_updates.backward_ended(self._rank.tree.modules()):
            self._on_boundary(self._steps.manual_update(self._manual_updates.updates))

    # ---- optimizers ------------------------------------------------------------------------------------------------

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        rank, probes = self._rank, self.probes
        try:
            if self.quiet_steps is not None and self.quiet_steps.stepped(optimizer):
                return
            rank.writing += 1
            if probes.probe is not None:
                probes.probe.optimizer_steps.step_ended()
            if probes.memory is not None:
                probes.memory.stepped(optimizer)
            if rank.models is None and not self._model_was_called and self._steps.backward_seen:
                self._adopt_uncalled(optimizer)
            if rank.output is not None:
                self._updates.stepped(optimizer)
                if probes.is_unwatched and self._updates.are_in_backward:
                    probes.instruments.watch_backward()
            rank.writing -= 1
        except BaseException as error:
            self._on_error("an optimizer's step", error)

    def _adopt_uncalled(self, optimizer: torch.optim.Optimizer) -> None:
        """Adopts the models of an optimizer's parameters if no model was called: compiled functions run them."""
        if self._rank.identify() is None or optimizer in self._searched_optimizers:
            return
        self._searched_optimizers.add(optimizer)
        for module in find_uncalled_models([p for group in optimizer.param_groups for p in group["params"]]):
            if self._rank.output is not None:
                self._rank.adopt(module, -1)
            elif not self._become_rank(module):
                return
        if self._rank.output is not None:
            self._steps.training_started_unseen()

    def _update_completed(self, optimizer: object) -> None:
        self.quiet_steps = None
        if self._rank.output is not None:
            self._rank.writing += 1
            self._on_boundary(self._steps.optimizer_stepped(optimizer))
            self._rank.writing -= 1

    def _outer_began(self) -> None:
        if self.probes.probe is not None:
            self.probes.probe.optimizer_steps.outer_began()

    def _outer_ended(self) -> None:
        if self.probes.probe is not None:
            self.probes.probe.optimizer_steps.outer_ended()


def _has_lazy(module: nn.Module) -> bool:
    return any(map(is_lazy, parameters_in(module)))
