"""The counting probe: counts each module's own work (forward, backward, recomputed) in an iteration
that is never timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import get_ident
from typing import Any

import torch
from torch import nn

from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.module_calls import ModuleCallPatch
from distprof.hooks.patches import OnError, dataloader_patch
from distprof.model.batch_order import takes_sequences_first
from distprof.model.moe_layers import MoeLayer
from distprof.model.unnamed_layers import UnnamedLayer
from distprof.probes.batch import shape
from distprof.probes.compiled.counted_code import CompiledCode
from distprof.probes.compiled.eager_choice import EagerChoice
from distprof.probes.counting.expert_evidence import ExpertEvidence
from distprof.probes.counting.iteration_count import IterationCount
from distprof.probes.counting.mode_switch import ModeSwitch
from distprof.probes.counting.router_figures import FiguresOfRouters
from distprof.probes.counting.weight_use import watching
from distprof.probes.experts import ExpertTally
from distprof.probes.module_stack import ModuleStack, ThreadCallHandler
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.probes.protocol import ModuleCallListener, Region
from distprof.records import ExpertRouting, Record

_RECOMPUTED = -2  # the token of a recomputing call, inside backward
_OTHER_THREAD = -3  # the token of a call on another thread


class CountingProbe:
    """Counts each iteration while it is attached: modules by their calls, the ops inside by a dispatch mode."""

    _count: IterationCount  # of the running iteration

    def __init__(
        self,
        patch: ModuleCallPatch,
        listener: ModuleCallListener,
        on_error: OnError,
        new_mode: Callable[[Attribution], FlopMode] = FlopMode,
        eager: EagerChoice | None = None,
        *,
        whole: bool = False,
        window: int = 0,
        layers: Sequence[MoeLayer] = (),
        unnamed: Sequence[UnnamedLayer] = (),
    ) -> None:
        """``whole``: counts whole iterations of a job, with the code between models, backward and optimizers.

        ``window`` is the number of the window, for its records.  Of the MoE ``layers`` the routers' choices are read.
        Those that are ``unnamed`` are told what their calls show.
        """
        self._window = window
        self._module_patch = patch
        self._whole = whole
        self._evidence = ExpertEvidence(unnamed)
        self._new_mode = watching(self._evidence.use) if self._evidence.use.watches else new_mode
        self._compiled = CompiledCode(self, eager, on_error)
        self.optimizer_steps = OptimizerSteps(self._optimizer_began, self._optimizer_ended, on_error)
        self._running = ModuleStack(listener)
        self._switch = ModeSwitch(self._running.thread, whole=whole)
        self._order = listener.tree.batch_order
        self._input_shape: torch.Size | None = None  # of the running model
        self._data_patch = dataloader_patch(on_error)
        self._routing = ExpertTally([_of_routers(layer) for layer in layers], window)
        self._figures = FiguresOfRouters(layers, listener.tree.rows)
        self._ended: list[Record] = []
        self._threads: set[int] = set()  # other threads that run a module now

    @property
    def thread(self) -> int:
        return self._running.thread

    # ---- iterations ------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        self.begin()
        self._compiled.acquire()
        self._module_patch.open(self)
        self.optimizer_steps.open()
        if self._whole:
            self._data_patch.open(ThreadCallHandler(self.thread, self._loading_began, self._loading_ended))

    def detach(self) -> None:
        self._switch.drop()
        self._module_patch.close()
        self.optimizer_steps.close()
        self._data_patch.close()
        self._compiled.release()

    def abandon(self) -> None:
        self._switch.is_abandoned = True
        self.detach()

    def begin(self) -> None:
        self._switch.drop()
        updates_first = self._whole and self._running.listener.updates_follow
        count = self._count = IterationCount(self._new_mode, whole=self._whole, updates_first=updates_first)
        self.optimizer_steps.forget()
        self._compiled.begin(count.mode, count.attribution)
        self._running.new_tally()
        self._routing.begin()
        self._figures.begin()
        self._evidence.begin()
        self._switch.begin(count.mode)

    def end(self, iteration: int, mode: str) -> None:
        if not self._switch.is_given_up:
            self._order.settle(self._count.calls)
            batches = self._running.tally.work()
            self._ended.append(self._count.record(iteration, mode, self._window, batches, self._compiled))
            self._ended += self._choices(iteration)
            self._evidence.judge()

    def _choices(self, iteration: int) -> list[Record]:
        """Returns what routers chose in the iteration.  Waits for the device: nothing is timed."""
        chosen, figures = self._routing.finish(iteration), self._figures.read()
        if chosen is not None and torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        records: list[Record] = [*chosen.records()] if chosen is not None else []
        if figures and not any(isinstance(one, ExpertRouting) for one in records):
            records.append(ExpertRouting(iteration, (), self._window))
        return [replace(one, figures=figures) if isinstance(one, ExpertRouting) else one for one in records]

    def read(self, *, wait: bool = False) -> list[Record]:
        ended, self._ended = self._ended, []
        return ended

    # ---- modules ---------------------------------------------------------------------------------------------------

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running = self._running
        if torch._C._current_graph_task_id() != -1:  # recompute, on any thread that runs autograd's engine
            row = running.row(module)
            if row >= 0:
                self._count.attribution.enter(row)
            return _RECOMPUTED if row >= 0 else None
        if get_ident() != running.thread:
            return self._enter_other_thread()
        if running.in_evaluation:
            return None
        row = running.row(module)
        if row < 0:
            return None
        if not running.stack:
            self._input_shape = shape(args, kwargs)
            self._compiled.model_begins()
            if running.enter_root(row, args, kwargs):
                self._model_began()
            else:
                self._compiled.evaluation_begins()
                self.pause()
        elif takes_sequences_first(module):
            self._order.observe(running.stack[0], self._input_shape, shape(args, kwargs))
        running.stack.append(row)
        if not running.in_evaluation:
            if self._figures.leaving:
                self._figures.masks.entered(len(running.stack) - 1, module, args, kwargs)
            count = self._count
            count.attribution.enter(row)
            count.calls[row] = count.calls.get(row, 0) + 1  # without another call: this runs for each module
            for read in self._evidence.entering.get(row, ()):
                read(args, kwargs)
        return row

    def _enter_other_thread(self) -> int | None:
        """Begins a module on another thread, where the mode is not on and autograd nodes are numbered separately."""
        running, thread = self._running, get_ident()
        if not running.stack or running.in_evaluation or thread in self._threads or not torch.is_grad_enabled():
            return None
        self._threads.add(thread)
        self._count.called_on_other_thread()
        return _OTHER_THREAD

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        if token == _OTHER_THREAD:
            self._threads.discard(get_ident())
            return
        if self._switch.is_abandoned:
            return
        running = self._running
        if not running.in_evaluation:
            self._count.attribution.leave()
        if token == _RECOMPUTED:
            return
        if token in self._routing.leaving and not running.in_evaluation:
            self._routing.leaving[token](output)
        if token in self._figures.leaving and not running.in_evaluation:
            self._figures.leaving[token](output, len(running.stack) - 1)
        for read in self._evidence.leaving.get(token, ()) if not running.in_evaluation else ():
            read(output)
        running.stack.pop()
        if not running.stack:
            if not running.in_evaluation:
                self._switch.leave_part()
            else:
                self.resume()
                self._compiled.evaluation_ended()
            running.leave_root(token)

    def _model_began(self) -> None:
        self._count.model_began()
        self._switch.enter_part()

    # ---- backward, optimizers, data loading ------------------------------------------------------------------------

    def backward_began(self, create_graph: bool) -> None:
        self._running.tally.backward()
        self._count.backward_began(create_graph)
        self._switch.enter_backward()

    def backward_ended(self) -> None:
        if self._switch.has_seen_backward:
            self._count.backward_ended(in_model=bool(self._running.stack))
            self._switch.leave_backward()

    def _optimizer_began(self) -> None:
        self._running.tally.updating += 1
        self._count.optimizer_began()
        self._switch.enter_part()

    def _optimizer_ended(self) -> None:
        self._running.tally.updating -= 1
        self._count.attribution.optimizer_ended()
        self._switch.leave_part()

    def _loading_began(self) -> None:
        self._running.loading_began()
        self.pause()

    def _loading_ended(self) -> None:
        self.resume()
        self._running.loading_ended()

    def pause(self) -> None:
        """Stops counting: what follows is not part of the step."""
        self._switch.pause()

    def resume(self) -> None:
        self._switch.resume()

    # ---- compiled code ---------------------------------------------------------------------------------------------

    @property
    def counts_now(self) -> bool:
        return self._switch.is_in_part

    def function_begins(self, region: Region) -> bool:
        running, count = self._running, self._count
        if get_ident() != running.thread or running.in_evaluation:
            return False
        if region.updates:
            self._optimizer_began()
            return True
        row = running.enter_region(region)
        if row is None:
            return False
        if row >= 0:
            count.calls[row] = count.calls.get(row, 0) + 1
        count.attribution.enter(row, made=0 if region.inference else 1)
        self._model_began()
        return True

    def function_ended(self, region: Region) -> None:
        if region.updates:
            self._optimizer_ended()
        else:
            self._count.attribution.leave()
            self._switch.leave_part()

    def give_up(self) -> bool:
        return self._switch.give_up()


def _of_routers(layer: MoeLayer) -> MoeLayer:
    """Returns the layer without what is read from the calls of its experts."""
    return replace(layer, read_handed=None, read_processed=None, read_buffer=None, expert_rows=())
