"""A running profile: the probes of a counted and of a timed step, attached together for one model.

The module call is patched twice, with the timing patch outside: it times the call and its counting.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from distprof.clock import Clock, SystemClock
from distprof.devices import running_device
from distprof.errors import DistprofError, said
from distprof.external_exceptions import pass_on
from distprof.flops.attribution import Attribution
from distprof.hooks.module_calls import ModuleCallHandler
from distprof.model.module_tree import ModuleTree
from distprof.model.registry import ModelRegistry
from distprof.model.uncalled import UncalledModels
from distprof.module_walk import every_module, modules_of, parameters_in
from distprof.probes.counting.op_table import OpTable, TableMode
from distprof.probes.counting.probe import CountingProbe
from distprof.probes.protocol import Probe
from distprof.probes.timing.probe import TimedProbe
from distprof.probes.timing.timeline import CudaTimestamps, HostTimestamps
from distprof.rank.identity import Identity
from distprof.recorder.instruments import Instruments
from distprof.records import FORWARD, TRAINING, Array, Counts, Ops, Record, Step
from distprof.standalone.aggregate import sum_pieces
from distprof.topology.meshes import MeshRecorder


class Session:
    """Profiles ``model`` from :meth:`start` to :meth:`stop`, on the thread that starts it.  Keeps no model alive."""

    def __init__(
        self, model: nn.Module, ignored: Collection[type], identity: Identity, clock: Clock | None = None
    ) -> None:
        """Modules of ``ignored`` types, and modules inside them, count no work."""
        self.error: DistprofError | None = None
        self.model_records: list[Record] = []  # the records that describe the model
        self._model = weakref.ref(model)
        self._ignored_types = tuple(ignored)
        self._ignored_rows: set[int] = set()
        self._clock = clock or SystemClock()
        self.device = _device_of(model)
        self._fake_modes = {tensor.fake_mode for tensor in _tensors_of(model) if isinstance(tensor, FakeTensor)}
        self._models = ModelRegistry(identity, MeshRecorder())
        self._uncalled_models = UncalledModels(self._models.tree, self.adopt)
        self._instruments = Instruments(self, self._optimizer_stepped, self.fail, modules=2)
        self._probes: tuple[Probe, ...] = ()
        self._trains = False
        self._other_calls = 0  # calls of other methods than forward
        self._times: list[Step] = []
        self._counts: Counts | None = None
        self._adopt(model, -1)

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Attaches the probes."""
        try:
            counting, timing = self._instruments.module_patches
            self._counting = CountingProbe(counting, self, self.fail, self._new_table_mode)
            self._timed = TimedProbe(timing, self, self.fail, self._clock, self.device.type, ())
            self._instruments.watch_backward()
            self._instruments.watch_optimizers()
            for probe in (self._counting, self._timed):
                probe.attach()
                self._probes += (probe,)
        except Exception:
            self._detach()
            raise

    def stop(self) -> None:
        """Collects what was measured, and detaches."""
        if self._probes:
            self._collect()
        self._detach()

    def fail(self, where: str, error: BaseException) -> None:
        """Handles an exception in distprof's code: :meth:`measured` raises.

        The user's call goes on after an exception of distprof's own; one from outside is raised again.
        """
        self._detach()
        if self.error is None:
            self.error = DistprofError(f"the profile failed in {where}: {type(error).__name__}: {said(error)}")
            self.error.__cause__ = error
        pass_on(error)

    def _detach(self) -> None:
        probes, self._probes = self._probes, ()
        for probe in reversed(probes):
            probe.detach()
        self._instruments.close()

    # ---- what was measured -----------------------------------------------------------------------------------------

    def measured(self) -> tuple[Counts, Ops, Step | None]:
        """Returns all since the start as one iteration; no step if nothing ran.  Raises DistprofError if it failed."""
        if self._probes:
            self._collect()
        if self.error is not None:
            raise self.error
        assert self._counts is not None
        mode = TRAINING if self._trains else FORWARD
        table = self._table
        ops = Ops(iteration=0, mode=mode, ops=table.rows(), timed=not table.nothing_ran)
        counts = replace(self._counts, mode=mode, calls=self._forwards(self._counts.calls))
        if table.nothing_ran or not self._times:
            return counts, ops, None
        step = sum_pieces(self._times)
        return counts, ops, replace(step, mode=mode, calls=self._forwards(step.calls))

    def _forwards(self, calls: Array) -> Array:
        """Returns calls by row; a call of another method counts as a forward only if it ran none."""
        forwards: Array = calls.copy()
        forwards[:1] = np.maximum(calls[:1].astype(np.int64) - self._other_calls, np.minimum(calls[:1], 1))
        return forwards

    def _collect(self) -> None:
        """Reads everything counted so far, and the times since the last reading."""
        with self._failing("reading what was measured"):
            self._counting.end(0, FORWARD)
            (counts,) = self._counting.read()
            assert isinstance(counts, Counts)
            self._counts = counts
            self._timed.end(0, FORWARD)
            self._times += [step for step in self._timed.read(wait=True) if isinstance(step, Step)]
            self._timed.begin()

    # ---- events of probes, patches and hooks ------------------------------------------------------------------------

    @property
    def tree(self) -> ModuleTree:
        return self._models.tree

    @property
    def mode(self) -> str:
        """Always FORWARD: a forward without gradient is not evaluation here, but the profiled call."""
        return FORWARD

    def adopt(self, module: nn.Module, caller: int) -> int:
        """Adopts modules that the model creates while it runs; ignores those called outside of it."""
        return -1 if caller < 0 else self._adopt(module, caller)

    @property
    def updates_follow(self) -> bool:
        return False

    def model_of(self, parameters: Sequence[nn.Parameter]) -> int:
        return self._uncalled_models.row(parameters)

    def model_ended(self, with_gradient: bool) -> None:
        """Does nothing: the one iteration ends when results are read."""

    def begin(self, args: tuple[Any, ...]) -> None:
        """Begins a backward; ``args`` are those of autograd's engine: the fourth is create_graph."""
        for probe in self._probes_of_this_thread():
            self._trains = True
            probe.backward_began(create_graph=len(args) > 3 and bool(args[3]))

    def end(self) -> None:
        for probe in self._probes_of_this_thread():
            probe.backward_ended()

    @contextlib.contextmanager
    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """Runs another method than ``forward`` inside this context: its work is the model's own."""
        self._other_calls += 1
        entered: list[tuple[ModuleCallHandler, int]] = []
        with self._failing("entering the model"):
            model = self._model()
            for handler in [patch.handler for patch in self._instruments.module_patches]:
                token = handler.enter(model, args, kwargs) if handler is not None and model is not None else None
                if handler is not None and token is not None:
                    entered.append((handler, token))
        try:
            yield
        finally:
            with self._failing("leaving the model"):
                for handler, token in reversed(entered):
                    handler.leave(token, None)

    @contextlib.contextmanager
    def _failing(self, where: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.fail(where, error)

    def _probes_of_this_thread(self) -> Iterator[Probe]:
        return (probe for probe in self._probes if probe.thread == get_ident())

    def _optimizer_stepped(self, optimizer: torch.optim.Optimizer) -> None:
        with self._failing("an optimizer's step"):
            for probe in self._probes_of_this_thread():
                probe.optimizer_steps.step_ended()

    def _adopt(self, module: nn.Module, caller: int) -> int:
        row, records = self._models.adopt(module, caller)
        self.model_records += records
        if row >= 0:
            self._ignore_below(module, row)
        return row

    def _ignore_below(self, module: nn.Module, first: int) -> None:
        rows = self.tree.rows
        for row, owner in zip(range(first, len(rows)), modules_of(module), strict=False):
            if type(owner) in self._ignored_types or rows[row].parent in self._ignored_rows:
                self._ignored_rows.add(row)

    def _new_table_mode(self, attribution: Attribution) -> TableMode:
        mono_ns = self._clock.mono_ns
        self._table = OpTable(CudaTimestamps(mono_ns) if self.device.type == "cuda" else HostTimestamps(mono_ns))
        return TableMode(attribution, self._table, self._ignored_rows, self._fake_modes)


def _tensors_of(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from parameters_in(model)
    for module in every_module(model):
        yield from (buffer for buffer in module._buffers.values() if buffer is not None)


def _device_of(model: nn.Module) -> torch.device:
    return running_device(_tensors_of(model), every_module(model)) or torch.device("cpu")
