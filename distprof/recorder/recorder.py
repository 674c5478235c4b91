"""The recorder of one process: armed when torch is imported, a rank from the first forward of a model on.

What the job does reaches it in one direction.  Patches, hooks and probes call :class:`JobEvents`, which asks the step
clock whether an iteration has ended.  The recorder then writes the iteration's records to the shard of
:class:`RecordedRank`, and lets :class:`ProbeSwitch` attach the probe of the next one.

All modules that it needs are imported before the job begins: torch's profiler fails on imports while it traces stacks.
Nothing here raises into the user's job: a failure is written as an ``error`` record, reported once, and everything is
detached.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence, Sized
from threading import get_ident

from torch import nn

from distprof.clock import Clock, SystemClock
from distprof.config.settings import Settings
from distprof.probes.counting.dispatch_stack import drop_abandoned_modes
from distprof.probes.timing.probe import TimedProbe
from distprof.recorder.failures import Failures
from distprof.recorder.heartbeat import script_failure
from distprof.recorder.job_events import JobEvents
from distprof.recorder.quiet_steps import QuietSteps
from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import Boundary, StepClock
from distprof.recorder.torch_trace import TorchTrace
from distprof.recorder.window_requests import WindowRequests
from distprof.recorder.windows.capture_plan import StepKind, first_window
from distprof.records import FORWARD, Record


class Recorder:
    """Records this process, if it turns out to be a rank that runs a model."""

    def __init__(self, settings: Settings, clock: Clock | None = None, *, asked: bool = False) -> None:
        """``asked``: the script itself asks to record this process."""
        clock = clock or SystemClock()
        self._settings = settings
        self._steps = StepClock(first_window(settings), settings.every)
        self.rank = RecordedRank(settings, clock, self._steps, asked=asked)
        self.requests = WindowRequests(self.rank, self._steps)
        self._events = JobEvents(self.rank, self._steps, clock, self._become_rank, self._act_on, self._fail)
        self.probes = self._events.probes
        self._trace = TorchTrace(clock, self.rank.run_dir)
        detach = (self.requests.refuse_all, self._trace.finish, self._detach, self.rank.stop_clock_sync)
        self._failures = Failures(self.rank, self._steps, self.probes, self._watch_optimizers_only, detach)

    # ---- from the import of torch to the end of the process --------------------------------------------------------

    def arm(self) -> None:
        """Waits for the first forward of a model.  If it raises, nothing stays patched."""
        try:
            self.rank.meshes.open()
            self.probes.instruments.watch_optimizers()
            self.probes.watch_models()
            os.register_at_fork(after_in_child=self._detach_in_child)
            atexit.register(self.finish)
        except Exception:
            self._detach()
            raise

    @property
    def iteration(self) -> int:
        """The number of the running iteration.

        It stands still after a window of a job that only runs forwards, because models are not watched then.
        """
        return self._steps.iteration

    def record_experts(self, layer: nn.Module, counts: Sized) -> None:
        """Adds tokens that the script has counted in a MoE layer, in a timed step; else only notes the layer."""
        models, probe = self.rank.models, self.probes.probe
        if models is None or self.rank.output is None or get_ident() != self._events.thread:
            return
        try:
            number, records = models.layer_number(layer, len(counts))
            self.rank.write(*records)
            if number is not None and isinstance(probe, TimedProbe):
                probe.record_experts(models.expert_layers, number, counts)
        except Exception as error:
            self._fail("record_experts()", error)

    def finish(self) -> None:
        """Writes the remaining records and removes everything from the process.  Also ends ``record()``."""
        try:
            self.rank.writing += 1
            self.rank.write(*self.probes.detach())
            self.rank.write_end("exit", script_failure())
        except BaseException as error:
            self._fail("the end of the job", error)
        finally:
            self.requests.refuse_all()
            self._trace.finish()
            if self.rank.heartbeat is not None:
                self.rank.heartbeat.finish(self._steps.iteration)
            self._detach()
            drop_abandoned_modes()
            self.rank.stop_clock_sync()
            if self.rank.output is not None:
                self.rank.output.close()
            atexit.unregister(self.finish)

    def _fail(self, where: str, error: BaseException) -> None:
        """Handles an exception in distprof's code: its own ends the recording, one from outside is raised again."""
        self._failures.handle(where, error)

    def _detach(self) -> None:
        try:
            self.probes.close()
        finally:
            self._events.close()
            self.rank.meshes.close()

    def _detach_in_child(self) -> None:
        """Leaves the shard to the parent of this forked child; without a shard yet, the child may become a rank."""
        if self.rank.identity is not None:
            self.rank.leave_to_parent()
            self._detach()

    # ---- from iteration to iteration -------------------------------------------------------------------------------

    def _become_rank(self, module: nn.Module) -> bool:
        """Becomes a rank with its first model.  Returns False if this process is not a rank yet, or if no shard can be
        written.
        """
        identity = self.rank.identify()
        if identity is None:
            return False
        if not self.rank.open(identity, module):
            self._detach()
            return False
        self._events.thread = get_ident()
        return True

    def _act_on(self, boundary: Boundary) -> None:
        """Ends or restarts the running iteration as an event requires."""
        rank, probe = self.rank, self.probes.probe
        if boundary is Boundary.NONE or rank.output is None:
            return
        if boundary is Boundary.RESTART:
            self._trace.finish()
            rank.write(*self.probes.detach())
            rank.end_is_written = self.requests.last_is_complete = False
        elif probe is not None:
            probe.end(self._steps.iteration - 1, self._steps.mode)
            warming_up = self.probes.kind is StepKind.WARMUP
            late = () if warming_up else (*rank.late_records(), *self._memory_records())
            rank.write(*probe.read(), *late)
        self._beat(counts=boundary is Boundary.END)
        self._begin_iteration()
        self._events.quiet_steps = self._quiet_steps()
        if rank.output is not None and rank.output.lost:
            self._detach()
            if rank.heartbeat is not None:
                rank.heartbeat.failed("writing its shard", "the shard could not be written", self._steps.iteration)

    def _beat(self, *, counts: bool) -> None:
        """Writes the heartbeat of the iteration that begins."""
        heartbeat, steps = self.rank.heartbeat, self._steps
        if heartbeat is None:
            return
        if heartbeat.iteration_begins(steps.iteration, steps.window, counts=counts):
            self.requests.answer()

    def _begin_iteration(self) -> None:
        """Begins an iteration and attaches the probe of its kind."""
        kind = self._steps.kind
        if kind is StepKind.DONE:
            if not self._begin_next_window():
                return
            kind = self._steps.kind
        self._attach(kind)
        if kind is StepKind.TRACED and self.rank.identity is not None:
            self._trace.iteration_begins(self._steps.iteration, self._steps.window.number, self.rank.identity)

    def _quiet_steps(self) -> QuietSteps | None:
        """Returns the short way of optimizer steps, for a quiet iteration; None where steps differ."""
        steps, optimizer = self._steps, self._steps.only_optimizer
        if optimizer is None or not self._events.may_be_quiet or steps.iteration + 1 >= steps.quiet_until:
            return None
        return QuietSteps(steps, optimizer, self.rank.heartbeat, self._end_quiet_iteration, self.requests.answer)

    def _end_quiet_iteration(self) -> None:
        """Goes on the long way with an iteration that is counted already."""
        self.rank.writing += 1
        self._act_on(Boundary.END)
        self.rank.writing -= 1

    def _attach(self, kind: StepKind) -> None:
        """Lets the job be watched as an iteration of this kind needs it."""
        rank, probes = self.rank, self.probes
        if rank.eager_choice is not None and self._steps.iteration == self._steps.window.start - 1:
            rank.eager_choice.publish()
        is_recorded = kind not in (StepKind.QUIET, StepKind.TRACED)
        if not is_recorded and probes.is_unwatched and self._steps.mode != FORWARD:
            return
        if probes.probe is not None and kind is probes.kind:
            probes.begin()
            return
        rank.write(*probes.detach())
        probes.kind = kind
        rank.steer_clock_sync(kind)
        if is_recorded:
            probes.attach(rank, self._steps)
            self._watch(kind)
        elif self._steps.mode == FORWARD:
            probes.watch_models()
        else:
            self._watch_optimizers_only()

    def _watch(self, kind: StepKind) -> None:
        heartbeat, models = self.rank.heartbeat, self.rank.models
        if heartbeat is not None and models is not None and kind is StepKind.TIMED:
            heartbeat.watch(lambda: self.probes.probe, models.tree.label)

    def _begin_next_window(self) -> bool:
        """Ends the window that is complete, and begins the next one if there is a plan for it.  Returns whether it did.

        Between windows the optimizer hook stays, so that iterations are numbered; where they end with a backward, the
        patch of backward stays, too.  A job that has only run forwards so far may still begin to train.
        """
        if not self.requests.last_is_complete:
            self.requests.last_is_complete = True
            self._trace.finish()
            self.rank.write(*self.probes.detach())
            self.probes.kind = StepKind.DONE
            self.rank.steer_clock_sync(StepKind.DONE)
            self._watch_optimizers_only()
            self.rank.write_end("window complete")
            self.rank.reduce_windows()
            if self._steps.mode != FORWARD:
                self._events.ignore_shape_inference()
                self.rank.meshes.close()
            elif self.rank.heartbeat is not None:
                self.rank.heartbeat.pause(self._steps.iteration)
        plan = self._steps.next_window()
        if plan is None:
            return False
        self.requests.last_is_complete = self.rank.end_is_written = False
        self.rank.meshes.open()
        self.rank.write(plan.record())
        return True

    def _memory_records(self) -> Sequence[Record]:
        """Returns the memory record once, at the end of the first timed iteration."""
        memory, self.probes.memory = self.probes.memory, None
        if memory is not None:
            return [memory.record(self.rank.tree.modules(), self._steps.iteration - 1)]
        return ()

    def _watch_optimizers_only(self) -> None:
        self.probes.watch_optimizers_only(backward_too=self._events.backward_ends_iterations)
