"""This process as a rank: its identity, its plan, its models, and the shard that describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from distprof.clock import Clock, anchor, clock_domain
from distprof.clock_sync.start import start_clock_sync
from distprof.clock_sync.thread import ClockSync
from distprof.config.settings import Settings
from distprof.console import say
from distprof.devices import running_device
from distprof.flops.attribution import with_gradient
from distprof.hooks.dynamo import out_of_trace
from distprof.model.module_tree import ModuleTree
from distprof.model.registry import ModelRegistry
from distprof.model.uncalled import UncalledModels
from distprof.module_walk import every_module, parameters_in
from distprof.probes.compiled.eager_choice import EagerChoice
from distprof.rank.identity import Identity, header, identify
from distprof.rank.ownership import is_rank_taken
from distprof.recorder.heartbeat import Heartbeat, open_heartbeat
from distprof.recorder.shard_output import ShardOutput, open_shard
from distprof.recorder.step_clock import StepClock
from distprof.recorder.windows.capture_plan import StepKind, first_window
from distprof.records import End, Record
from distprof.run_folder import RunFolder
from distprof.topology.meshes import MeshRecorder

#: Where windows come back, a shard holds up to so many whole ones; then all but the last ones are reduced.
_MOST_WINDOWS, _KEPT_WINDOWS = 8, 4


class RecordedRank:
    """What is known of this rank; before :meth:`open`, and where it fails, there is no identity and no shard."""

    def __init__(self, settings: Settings, clock: Clock, steps: StepClock, *, asked: bool = False) -> None:
        """``asked``: the script itself asks to record this process."""
        self.asked = asked
        self.meshes = MeshRecorder()
        self.identity: Identity | None = None
        self.models: ModelRegistry | None = None
        self.output: ShardOutput | None = None  # the shard, while the rank is recorded
        self.clock_sync: ClockSync | None = None  # where there may be several hosts
        self.heartbeat: Heartbeat | None = None  # where this node has a page
        self.device = torch.device("cpu")
        self.eager_choice: EagerChoice | None = None
        self.end_is_written = False
        self.writing = 0  # above 0 while records are made and written, and after an exception from outside there
        self.settings = settings
        self._clock = clock
        self._steps = steps
        self._uncalled_models: UncalledModels | None = None

    def identify(self) -> Identity | None:
        """Returns which rank this process is now; None if none: it may join a process group later."""
        return identify(asked=self.asked)

    def open(self, identity: Identity, module: nn.Module) -> bool:
        """Opens the shard and writes the first records, with the rank's first model.

        Returns False if another process is this rank, or if no shard can be written.
        """
        settings, run = self.settings, RunFolder(self.run_dir)
        self.device = running_device(parameters_in(module), every_module(module))
        self.eager_choice = EagerChoice(settings.count_eager, self.device)
        launch = settings.launch, settings.launched_ns
        first = header(identity, settings.run_id, anchor(self._clock), self.device, launch)
        writer = open_shard(run, first, lambda: self._is_taken(run, identity))
        if writer is None:
            return False
        self.identity, self.output = identity, ShardOutput(writer, identity.rank)
        self.clock_sync = start_clock_sync(
            settings.run_id, identity.world_size, self._clock, clock_domain(), self.output.write
        )
        self.heartbeat = open_heartbeat(settings, identity, self.device, self._clock, self._evaluates)
        self.models = ModelRegistry(identity, self.meshes, counts=settings.count)
        self._uncalled_models = UncalledModels(self.models.tree, self.adopt)
        self._steps.window = first_window(settings, identity.world_size)
        self.output.write(self._steps.window.record())
        self.adopt(module, -1)
        return True

    def _is_taken(self, run: RunFolder, identity: Identity) -> bool:
        """Returns whether another process is the rank; reports it if the script asked for the recording."""
        taken = is_rank_taken(run, identity.rank, identity.claim, self.settings.launched_ns)
        if taken and self.asked:
            say(f"this process is not recorded: another one is rank {identity.rank} of {run.path}")
        return taken

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.settings.run_dir)

    @property
    def tree(self) -> ModuleTree:
        assert self.models is not None
        return self.models.tree

    def _evaluates(self) -> bool:
        """Returns whether all modules that are known are in evaluation mode; any thread may ask."""
        modules = list(self.models.tree.modules()) if self.models is not None else []
        return bool(modules) and not any(module.training for module in modules)

    def adopt(self, module: nn.Module, caller: int) -> int:
        """Adds a new module to the models and writes its records.  Returns its row; -1 if it gets none."""
        assert self.models is not None and self.output is not None
        self.writing += 1
        has_gradient = with_gradient()
        with out_of_trace():
            row, records = self.models.adopt(module, caller, with_gradient=has_gradient)
        self.write(*records)
        self.writing -= 1
        if self.models.is_pipelined:
            self._steps.pipeline_seen()
        return row

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        return self._uncalled_models.row(parameters) if self._uncalled_models is not None else -1

    def write(self, *records: Record) -> None:
        if self.output is not None:
            self.output.write(*records)
            if self.heartbeat is not None:
                self.heartbeat.read_records(records)

    def late_records(self) -> Sequence[Record]:
        """Returns what became known of the models since their own records."""
        models = self.models
        if models is None or not models.has_late_records:
            return ()
        return models.late_records(self._steps.optimizers)

    def write_end(self, reason: str, failure: str = "") -> None:
        """Writes the late records, and why recording ends; training after forwards may continue the shard."""
        is_told = reason == "exit" and self.end_is_written and not failure
        if self.output is not None and self.models is not None and not is_told:
            self.end_is_written = True
            end = End(reason, self._steps.iteration, failure)
            self.write(*self.late_records(), *self.models.place_records(), end)

    def reduce_windows(self) -> None:
        """Bounds the size of the shard where windows come back."""
        if self.settings.every and self.output is not None:
            self.output.reduce_windows(_KEPT_WINDOWS, _MOST_WINDOWS)

    def steer_clock_sync(self, kind: StepKind) -> None:
        """Keeps the comparison of clocks out of timed steps, before a step of this kind."""
        if self.clock_sync is None:
            return
        if kind is StepKind.TIMED:
            self.clock_sync.pause()
        elif kind is StepKind.DONE:
            self.clock_sync.measure_again()
        else:
            self.clock_sync.resume()

    def stop_clock_sync(self) -> None:
        sync, self.clock_sync = self.clock_sync, None
        if sync is not None:
            sync.stop()

    def leave_to_parent(self) -> None:
        """Leaves the shard to the parent of this forked child."""
        if self.output is not None:
            self.output.abandon()
        self.output, self.end_is_written = None, True
        self.clock_sync = self.heartbeat = None  # their threads are the parent's
