"""The recorder of one process: armed when torch is imported, a rank from the first forward of a model on.

It owns the instruments, the attached probe and the shard; the step clock decides when to change probes.  All modules
that it needs are imported before the job begins: torch's profiler fails on imports while it traces stacks.  Nothing
here raises into the user's job: a failure is written as an ``error`` record, reported once, and everything is detached.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import traceback
import weakref
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from distprof.clock import Clock, SystemClock, anchor
from distprof.config.settings import Settings
from distprof.console import say
from distprof.devices import running_device
from distprof.errors import said
from distprof.external_exceptions import came_from_outside
from distprof.flops.attribution import with_gradient
from distprof.frameworks.shape_inference import ShapeInference
from distprof.hooks.dynamo import out_of_trace
from distprof.hooks.patches import dataloader_patch
from distprof.hooks.recursion_limit import RecursionLimit
from distprof.model.module_tree import ModuleTree
from distprof.model.registry import ModelRegistry
from distprof.model.uncalled import UncalledModels, find_uncalled_models
from distprof.module_walk import every_module, parameters_in
from distprof.probes.compiled.eager_choice import EagerChoice
from distprof.probes.counting.dispatch_stack import drop_abandoned_modes
from distprof.probes.counting.probe import CountingProbe
from distprof.probes.memory.breakdown import MemoryBreakdown
from distprof.probes.model_watch import ModelWatch
from distprof.probes.module_stack import Loading
from distprof.probes.protocol import Probe
from distprof.probes.timing.probe import TimedProbe
from distprof.rank.identity import Identity, header, identify
from distprof.rank.ownership import is_rank_taken
from distprof.recorder.instruments import Instruments
from distprof.recorder.manual_updates import ManualUpdates
from distprof.recorder.shard_output import ShardOutput, open_shard
from distprof.recorder.step_clock import Boundary, StepClock, StepKind, window_of
from distprof.recorder.updates import Updates
from distprof.records import FORWARD, End, Error, Plan, Record
from distprof.run_folder import RunFolder
from distprof.topology.meshes import MeshRecorder


class Recorder:
    """Records this process, if it turns out to be a rank that runs a model."""

    def __init__(self, settings: Settings, clock: Clock | None = None, *, asked: bool = False) -> None:
        """``asked``: the script itself asks to record this process."""
        self._settings = settings
        self.asked = asked
        self._clock = clock or SystemClock()
        self._steps = StepClock(window_of(settings))
        self._meshes = MeshRecorder()
        self._instruments = Instruments(self, self._optimizer_stepped, self.fail)
        (self._module_patch,) = self._instruments.module_patches
        self._data_patch = dataloader_patch(self.fail)
        self._loading = Loading()
        self._manual_updates = ManualUpdates()
        self._shape_inference = ShapeInference(self._shape_inference_began, self._shape_inference_ended, self.fail)
        self._in_shape_inference = False
        self._updates = Updates(
            self._update_completed, self._outer_began, self._outer_ended, self._is_watching, self.fail
        )
        self._probe: Probe | None = None
        self._attached = StepKind.QUIET  # the kind of step that the probe is for
        self._is_unwatched = False  # only the optimizers' steps are seen
        self._identity: Identity | None = None
        self._models: ModelRegistry | None = None
        self._uncalled_models: UncalledModels | None = None
        self._model_was_called = False  # also before this process was a rank
        self._asked_for_models: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._output: ShardOutput | None = None
        self._memory: MemoryBreakdown | None = None  # of the first timed iteration, while it runs
        self._device = torch.device("cpu")
        self._eager_choice: EagerChoice | None = None
        self.thread: int | None = None  # the thread that ran the first model
        self._recursion_limit = RecursionLimit()
        self._end_is_written = False
        self._failed = False
        self._writing = 0  # above 0 while records are made and written, and after an exception from outside there

    # ---- life ------------------------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Waits for the first forward of a model.  If it raises, nothing stays patched."""
        try:
            self._meshes.open()
            self._instruments.watch_optimizers()
            self._watch_models()
            os.register_at_fork(after_in_child=self._detach_in_child)
            atexit.register(self.finish)
        except Exception:
            self._detach()
            raise

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return Path(self._settings.run_dir)

    @property
    def claimed(self) -> bool:
        """Whether this process has run a model as a rank."""
        return self._identity is not None

    def finish(self) -> None:
        """Writes the remaining records and removes everything from the process.  Also ends ``record()``."""
        try:
            self._writing += 1
            self._detach_probe()
            self._write_end("exit")
        except BaseException as error:
            self.fail("the end of the job", error)
        finally:
            self._detach()
            drop_abandoned_modes()
            if self._output is not None:
                self._output.close()
            atexit.unregister(self.finish)

    def fail(self, where: str, error: BaseException) -> None:
        """Handles an exception in distprof's code: its own ends the recording, one from outside is raised again."""
        if not came_from_outside(error):
            self._give_up(where, error)
            return
        if self._writing:
            self._give_up(where, error)
        else:
            self._skip_iteration()
        raise error

    def _skip_iteration(self) -> None:
        """Skips the running iteration, of which some events were missed; the next one can be recorded."""
        with contextlib.suppress(Exception):
            probe, self._memory = self._probe, None
            if probe is not None:
                probe.abandon()
                self._recursion_limit.restore()
                self._probe = None
                if self._output is not None:
                    self._output.write(*probe.read(wait=True))
            if self.mode == FORWARD and not self._end_is_written:
                self._watch_models()
            else:
                self._stop_watching()

    def _give_up(self, where: str, error: BaseException) -> None:
        """Ends the recording: keeps what was recorded, reports once, and detaches everything."""
        output, self._output = self._output, None
        probe = self._probe
        for step in (*((probe.abandon,) if probe is not None else ()), self._detach):
            with contextlib.suppress(Exception):
                step()
        if not self._failed:
            self._failed = True
            who = f"rank {self._identity.rank}" if self._identity else "this process"
            say(f"{who} stops recording, the job goes on: {type(error).__name__} in {where}: {said(error)}")
        if output is not None:
            with contextlib.suppress(Exception):
                trace = "".join(traceback.format_exception(error))
                output.write(Error(where, f"{type(error).__name__}: {said(error)}", trace))
                output.close()

    def _detach(self) -> None:
        probe, self._probe = self._probe, None
        self._recursion_limit.restore()
        self._stop_watching()
        self._instruments.close()
        self._shape_inference.close()
        self._meshes.close()
        self._updates.close()
        if probe is not None:
            probe.detach()

    def _detach_in_child(self) -> None:
        """Leaves the shard to the parent of this forked child; without a shard yet, the child may become a rank."""
        if self._identity is None:
            return
        if self._output is not None:
            self._output.abandon()
        self._output, self._end_is_written = None, True
        self._detach()

    # ---- events of handlers and hooks -----------------------------------------------------------------------------

    @property
    def tree(self) -> ModuleTree:
        assert self._models is not None
        return self._models.tree

    @property
    def mode(self) -> str:
        """records.TRAINING once an optimizer has stepped; before, forwards with gradient may belong to training."""
        return self._steps.mode

    @property
    def updates_follow(self) -> bool:
        return self._steps.is_manual

    def adopt(self, module: nn.Module, caller: int) -> int:
        assert self._models is not None and self._output is not None
        self._writing += 1
        has_gradient = with_gradient()
        with out_of_trace():
            row, records = self._models.adopt(module, caller, with_gradient=has_gradient)
        self._output.write(*records)
        self._writing -= 1
        if self._models.is_pipelined:
            self._steps.pipeline_seen()
        return row

    def model_began(self, module: nn.Module) -> None:
        """Begins a model's forward; a lazy model, which gets its shapes in it, is adopted at its next forward."""
        self._model_was_called = True
        self._shape_inference.open()
        if self._shape_inference.running():
            return
        self._updates.model_begins()
        if self._output is None:
            self._writing += 1
            if self._models is None and not _has_lazy(module) and self._become_rank(module):
                self._begin_iteration()
            self._writing -= 1
        elif self.tree.find(module, -1) is None and not _has_lazy(module):
            self.adopt(module, -1)

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        return self._uncalled_models.row(parameters) if self._uncalled_models is not None else -1

    def model_ended(self, with_gradient: bool) -> None:
        """Ends a model's forward, with any probe."""
        if self._output is not None and not self._shape_inference.running():
            self._writing += 1
            self._act_on(self._steps.forward_ended(with_gradient))
            self._writing -= 1

    def begin(self, args: tuple[Any, ...]) -> None:
        """Begins a backward, on any thread; ``args`` are those of autograd's engine: the fourth is create_graph."""
        drop_abandoned_modes()
        self._updates.backward_began()
        if self._in_shape_inference:
            return
        self._steps.backward_began()
        if self._looks_for_updates and self._updates.backwards == 1:
            self._manual_updates.backward_began()
        if self._probe is not None:
            self._probe.backward_began(create_graph=len(args) > 3 and bool(args[3]))

    def end(self) -> None:
        """Ends a backward."""
        if not self._in_shape_inference and self._probe is not None:
            self._probe.backward_ended()
        self._updates.backward_ended()
        if self._looks_for_updates and not self._in_shape_inference and not self._updates.backwards:
            self._look_for_update()

    def _look_for_update(self) -> None:
        if self._manual_updates.backward_ended(self.tree.modules()):
            self._act_on(self._steps.manual_update(self._manual_updates.updates))

    @property
    def _looks_for_updates(self) -> bool:
        """Whether to look for updates that no torch optimizer makes."""
        return self._output is not None and (self.mode == FORWARD or self._steps.is_manual)

    def _shape_inference_began(self) -> None:
        self._in_shape_inference = True
        self._instruments.pause()

    def _shape_inference_ended(self) -> None:
        self._in_shape_inference = False
        self._instruments.resume()

    def _optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        try:
            self._writing += 1
            if self._probe is not None:
                self._probe.optimizer_ended()
            if self._memory is not None:
                self._memory.stepped(optimizer)
            if self._models is None and not self._model_was_called and self._steps.backward_seen:
                self._adopt_uncalled(optimizer)
            if self._output is not None:
                self._updates.stepped(optimizer)
                if self._is_unwatched and self._updates.are_in_backward:
                    self._instruments.watch_backward()
            self._writing -= 1
        except BaseException as error:
            self.fail("an optimizer's step", error)

    def _is_watching(self) -> bool:
        return self._probe is None and not self._is_unwatched

    def _update_completed(self, optimizer: object) -> None:
        if self._output is not None:
            self._writing += 1
            self._act_on(self._steps.optimizer_stepped(optimizer))
            self._writing -= 1

    def _outer_began(self) -> None:
        if self._probe is not None:
            self._probe.outer_step_began()

    def _outer_ended(self) -> None:
        if self._probe is not None:
            self._probe.outer_step_ended()

    def _adopt_uncalled(self, optimizer: torch.optim.Optimizer) -> None:
        """Adopts the models of an optimizer's parameters if no model was called: compiled functions run them."""
        if identify(asked=self.asked) is None or optimizer in self._asked_for_models:
            return
        self._asked_for_models.add(optimizer)
        for module in find_uncalled_models([p for group in optimizer.param_groups for p in group["params"]]):
            if self._output is not None:
                self.adopt(module, -1)
            elif not self._become_rank(module):
                return
        if self._output is not None:
            self._steps.training_started_unseen()

    # ---- from iteration to iteration -------------------------------------------------------------------------------

    def _become_rank(self, module: nn.Module) -> bool:
        """Becomes a rank: opens the shard and writes the first records.  Returns False if this process is not a rank
        yet, or if no shard can be written.
        """
        identity, run = identify(asked=self.asked), RunFolder(self.run_dir)
        if identity is None:  # the process may join a process group later
            return False
        self._device = running_device(parameters_in(module), every_module(module))
        self._eager_choice = EagerChoice(self._settings.count_eager, self._device)
        launch = self._settings.launch, self._settings.launched_ns
        first = header(identity, self._settings.run_id, anchor(self._clock), self._device, launch)
        writer = open_shard(run, first, lambda: self._is_taken(run, identity))
        if writer is None:
            self._detach()
            return False
        self._identity, self._output = identity, ShardOutput(writer, identity.rank)
        self.thread = get_ident()
        self._models = ModelRegistry(identity, self._meshes)
        self._uncalled_models = UncalledModels(self._models.tree, self.adopt)
        window = window_of(self._settings, identity.world_size)
        self._steps.window = window
        self._output.write(Plan(window.warmup, window.counted, window.timed, window.settling))
        self.adopt(module, -1)
        return True

    def _is_taken(self, run: RunFolder, identity: Identity) -> bool:
        """Returns whether another process is the rank; reports it if the script asked for the recording."""
        taken = is_rank_taken(run, identity.rank, identity.claim, self._settings.launched_ns)
        if taken and self.asked:
            say(f"this process is not recorded: another one is rank {identity.rank} of {run.path}")
        return taken

    def _act_on(self, boundary: Boundary) -> None:
        """Ends or restarts the running iteration as an event requires."""
        if boundary is Boundary.NONE or self._output is None:
            return
        if boundary is Boundary.RESTART:
            self._detach_probe()
            self._end_is_written = False
        elif self._probe is not None:
            self._probe.end(self._steps.iteration - 1, self.mode)
            self._output.write(*self._probe.read(), *self._late_records(), *self._memory_records())
        self._begin_iteration()
        if self._output is not None and self._output.lost:
            self._detach()

    def _begin_iteration(self) -> None:
        """Begins an iteration and attaches the probe of its kind."""
        kind = self._steps.kind
        if self._eager_choice is not None and self._steps.iteration == self._settings.warmup - 1:
            self._eager_choice.publish()
        if kind is StepKind.QUIET and self._is_unwatched:
            return
        if self._probe is not None and kind is self._attached:
            self._recursion_limit.increase()
            self._probe.begin()
            return
        self._detach_probe()
        self._attached = kind
        if kind is StepKind.DONE:
            self._finish_window()
        elif kind is not StepKind.QUIET:
            self._is_unwatched = False
            self._data_patch.close()  # the probe has its own patch
            self._instruments.watch_backward()
            self._memory = MemoryBreakdown() if kind is StepKind.TIMED else None
            self._probe = self._new_probe(kind)
            self._recursion_limit.increase()
            self._probe.attach()
        elif self.mode == FORWARD:
            self._watch_models()
        else:
            self._stop_watching()

    def _watch_models(self) -> None:
        self._is_unwatched = False
        self._instruments.watch_backward()
        self._data_patch.open(self._loading)
        self._module_patch.open(ModelWatch(self._module_patch, self, self._loading))

    def _stop_watching(self) -> None:
        self._is_unwatched = True
        self._instruments.ignore_modules()
        self._data_patch.close()
        if not self._updates.are_in_backward and not self._steps.is_manual:  # iterations end with a backward
            self._instruments.ignore_backward()

    def _new_probe(self, kind: StepKind) -> Probe:
        assert self._models is not None
        if kind is StepKind.COUNTED:
            return CountingProbe(self._module_patch, self, self.fail, eager=self._eager_choice, whole=True)
        return TimedProbe(
            self._module_patch, self, self.fail, self._clock, self._device.type, self._models.expert_layers
        )

    def _detach_probe(self) -> None:
        """Detaches the probe and writes its records of complete iterations."""
        probe = self._probe
        if probe is not None:
            probe.detach()
            self._recursion_limit.restore()
            self._probe = None
            if self._output is not None:
                self._output.write(*probe.read(wait=True))

    def _finish_window(self) -> None:
        """Ends the window; a job that has only run forwards so far may still begin to train."""
        self._stop_watching()
        self._write_end("window complete")
        self._instruments.ignore_backward()
        if self.mode != FORWARD and not self._steps.is_manual:
            self._detach()

    def _write_end(self, reason: str) -> None:
        """Writes the late records, and why recording ends; training after forwards may continue the shard."""
        if self._output is not None and self._models is not None and not (reason == "exit" and self._end_is_written):
            self._end_is_written = True
            self._output.write(*self._late_records(), *self._models.place_records(), End(reason, self._steps.iteration))

    def _memory_records(self) -> Sequence[Record]:
        """Returns the memory record once, at the end of the first timed iteration."""
        memory, self._memory = self._memory, None
        if memory is not None:
            return [memory.record(self.tree.modules(), self._steps.iteration - 1)]
        return ()

    def _late_records(self) -> Sequence[Record]:
        return self._models.late_records(self._steps.optimizers) if self._models is not None else ()


def _has_lazy(module: nn.Module) -> bool:
    return any(map(is_lazy, parameters_in(module)))
