"""Switches between what watches the job: a probe in a recorded iteration, else the model watch, or the optimizer hook
alone.
"""

from __future__ import annotations

from typing import Protocol

import torch

from distprof.clock import Clock
from distprof.hooks.patches import FunctionCallHandler, OnError, dataloader_patch
from distprof.hooks.recursion_limit import RecursionLimit
from distprof.probes.collectives.recording import new_recording
from distprof.probes.counting.probe import CountingProbe
from distprof.probes.memory.breakdown import MemoryBreakdown
from distprof.probes.model_watch import ModelListener, ModelWatch
from distprof.probes.module_stack import Loading
from distprof.probes.protocol import ModuleCallListener, Probe
from distprof.probes.timing.probe import TimedProbe
from distprof.probes.timing.warmup import WarmupProbe
from distprof.recorder.instruments import Instruments
from distprof.recorder.recorded_rank import RecordedRank
from distprof.recorder.step_clock import StepClock
from distprof.recorder.windows.capture_plan import StepKind
from distprof.records import Record


class Listener(FunctionCallHandler, ModelListener, ModuleCallListener, Protocol):
    """Receives what the instruments and the probes see; ``begin`` and ``end`` are those of backward."""

    def optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None: ...


class ProbeSwitch:
    """Owns the instruments, and the probe that is attached now; between steps it attaches another one."""

    def __init__(self, listener: Listener, clock: Clock, on_error: OnError) -> None:
        self.instruments = Instruments(listener, listener.optimizer_stepped, on_error)
        self.probe: Probe | None = None
        self.kind = StepKind.QUIET  # the kind of step that was begun last
        self.is_unwatched = False  # only the optimizers' steps are seen
        self.memory: MemoryBreakdown | None = None  # of the first timed iteration, while it runs
        self._listener = listener
        self._clock = clock
        self._on_error = on_error
        (self._module_patch,) = self.instruments.module_patches
        self._data_patch = dataloader_patch(on_error)
        self._loading = Loading()
        self._recursion_limit = RecursionLimit()

    def is_watching_models(self) -> bool:
        """Whether the begin of each model is seen, and no probe looks inside them."""
        return not self.is_unwatched and (self.probe is None or self.kind is StepKind.WARMUP)

    def watch_models(self) -> None:
        """Watches for models that run, without a look inside."""
        self.is_unwatched = False
        self.instruments.watch_backward()
        self._data_patch.open(self._loading)
        self._module_patch.open(ModelWatch(self._module_patch, self._listener, self._loading))

    def watch_optimizers_only(self, *, backward_too: bool = False) -> None:
        """Closes all patches; ``backward_too``: except the one of backward."""
        self.is_unwatched = True
        self.instruments.ignore_modules()
        self._data_patch.close()
        if not backward_too:
            self.instruments.ignore_backward()

    def attach(self, rank: RecordedRank, steps: StepClock) -> None:
        """Attaches the probe of the iteration that begins."""
        kind, window = self.kind, steps.window.number
        self.is_unwatched = False
        self._data_patch.close()  # the probe has its own patch
        self.instruments.watch_backward()
        self.memory = MemoryBreakdown(window) if kind is StepKind.TIMED else None
        self.probe = self._new_probe(rank, steps)
        self._make_room()
        self.probe.attach()

    def _make_room(self) -> None:
        if self.kind is not StepKind.WARMUP:  # else there are no frames of ours between modules
            self._recursion_limit.increase()

    def _new_probe(self, rank: RecordedRank, steps: StepClock) -> Probe:
        given, window = (self._module_patch, self._listener, self._on_error), steps.window.number
        if self.kind is StepKind.WARMUP:
            return WarmupProbe(*given, self._clock, rank.device.type, self._loading, steps.restarts)
        if self.kind is StepKind.COUNTED:
            layers, unnamed = ((), ()) if rank.models is None else (rank.models.expert_layers, rank.models.unnamed)
            return CountingProbe(
                *given, eager=rank.eager_choice, whole=True, window=window, layers=layers, unnamed=unnamed
            )
        assert rank.models is not None and rank.identity is not None
        collectives = new_recording(
            self._clock,
            rank.identity.world_size,
            self._on_error,
            window,
            wanted=rank.settings.collectives,
            timing=rank.settings.collective_timing,
            reducing=rank.models.reducer_groups(),
        )
        return TimedProbe(
            *given, self._clock, rank.device.type, rank.models.expert_layers, window, collectives=collectives
        )

    def begin(self) -> None:
        """Begins another iteration of the attached probe."""
        if self.probe is not None:
            self._make_room()
            self.probe.begin()

    def detach(self) -> list[Record]:
        """Detaches the probe.  Returns its records of complete iterations."""
        if self.probe is not None:
            self.probe.detach()
        return self._remove_probe()

    def abandon(self) -> list[Record]:
        """Detaches the probe in the middle of an iteration, which is not recorded.  Returns its other records."""
        self.memory = None
        if self.probe is not None:
            self.probe.abandon()
        return self._remove_probe()

    def _remove_probe(self) -> list[Record]:
        probe = self.probe
        if probe is None:
            return []
        self._recursion_limit.restore()
        self.probe = None
        return probe.read(wait=True)

    def close(self) -> None:
        """Removes everything from the process."""
        probe, self.probe = self.probe, None
        self._recursion_limit.restore()
        self.watch_optimizers_only()
        self.instruments.close()
        if probe is not None:
            probe.detach()
