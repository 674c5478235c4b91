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
import contextlib
import os
import traceback
from collections.abc import Sequence
from threading import get_ident

from torch import nn

from distprof.clock import Clock, SystemClock
from distprof.config.settings import Settings
from distprof.console import say
from distprof.errors import said
from distprof.external_exceptions import came_from_outside
from distprof.probes.counting.dispatch_stack import drop_abandoned_modes
from distprof.recorder.job_events import JobEvents
from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import Boundary, StepClock, StepKind, window_of
from distprof.records import FORWARD, Error, Record


class Recorder:
    """Records this process, if it turns out to be a rank that runs a model."""

    def __init__(self, settings: Settings, clock: Clock | None = None, *, asked: bool = False) -> None:
        """``asked``: the script itself asks to record this process."""
        clock = clock or SystemClock()
        self._settings = settings
        self._steps = StepClock(window_of(settings))
        self.rank = RecordedRank(settings, clock, self._steps, asked=asked)
        self._events = JobEvents(self.rank, self._steps, clock, self._become_rank, self._act_on, self.fail)
        self.probes = self._events.probes
        self._failed = False

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

    def finish(self) -> None:
        """Writes the remaining records and removes everything from the process.  Also ends ``record()``."""
        try:
            self.rank.writing += 1
            self.rank.write(*self.probes.detach())
            self.rank.write_end("exit")
        except BaseException as error:
            self.fail("the end of the job", error)
        finally:
            self._detach()
            drop_abandoned_modes()
            self.rank.stop_clock_sync()
            if self.rank.output is not None:
                self.rank.output.close()
            atexit.unregister(self.finish)

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
            rank.write(*self.probes.detach())
            rank.end_is_written = False
        elif probe is not None:
            probe.end(self._steps.iteration - 1, self._steps.mode)
            rank.write(*probe.read(), *rank.late_records(), *self._memory_records())
        self._begin_iteration()
        if rank.output is not None and rank.output.lost:
            self._detach()

    def _begin_iteration(self) -> None:
        """Begins an iteration and attaches the probe of its kind."""
        kind, rank, probes = self._steps.kind, self.rank, self.probes
        if rank.eager_choice is not None and self._steps.iteration == self._settings.warmup - 1:
            rank.eager_choice.publish()
        if kind is StepKind.QUIET and probes.is_unwatched:
            return
        if probes.probe is not None and kind is probes.kind:
            probes.begin()
            return
        rank.write(*probes.detach())
        probes.kind = kind
        rank.steer_clock_sync(kind)
        if kind is StepKind.DONE:
            self._finish_window()
        elif kind is not StepKind.QUIET:
            probes.attach(kind, rank)
        elif self._steps.mode == FORWARD:
            probes.watch_models()
        else:
            probes.watch_optimizers_only(backward_too=self._events.backward_ends_iterations)

    def _finish_window(self) -> None:
        """Ends the window; a job that has only run forwards so far may still begin to train."""
        self.probes.watch_optimizers_only()
        self.rank.write_end("window complete")
        if self._steps.mode != FORWARD and not self._steps.is_manual:
            self._detach()

    def _memory_records(self) -> Sequence[Record]:
        """Returns the memory record once, at the end of the first timed iteration."""
        memory, self.probes.memory = self.probes.memory, None
        if memory is not None:
            return [memory.record(self.rank.tree.modules(), self._steps.iteration - 1)]
        return ()

    # ---- failures --------------------------------------------------------------------------------------------------

    def fail(self, where: str, error: BaseException) -> None:
        """Handles an exception in distprof's code: its own ends the recording, one from outside is raised again."""
        if not came_from_outside(error):
            self._give_up(where, error)
            return
        if self.rank.writing:
            self._give_up(where, error)
        else:
            self._skip_iteration()
        raise error

    def _skip_iteration(self) -> None:
        """Skips the running iteration, of which some events were missed; the next one can be recorded."""
        with contextlib.suppress(Exception):
            self.rank.write(*self.probes.abandon())
            if self._steps.mode == FORWARD and not self.rank.end_is_written:
                self.probes.watch_models()
            else:
                self.probes.watch_optimizers_only(backward_too=self._events.backward_ends_iterations)

    def _give_up(self, where: str, error: BaseException) -> None:
        """Ends the recording: keeps what was recorded, reports once, and detaches everything."""
        output, self.rank.output = self.rank.output, None
        probe = self.probes.probe
        for step in (*((probe.abandon,) if probe is not None else ()), self._detach, self.rank.stop_clock_sync):
            with contextlib.suppress(Exception):
                step()
        if not self._failed:
            self._failed = True
            who = f"rank {self.rank.identity.rank}" if self.rank.identity else "this process"
            say(f"{who} stops recording, the job goes on: {type(error).__name__} in {where}: {said(error)}")
        if output is not None:
            with contextlib.suppress(Exception):
                trace = "".join(traceback.format_exception(error))
                output.write(Error(where, f"{type(error).__name__}: {said(error)}", trace))
                output.close()
