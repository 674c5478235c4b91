"""The counting probe: counts each module's own work (forward, backward, recomputed) in an iteration
that is never timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import nn

from distprof.flops.attribution import BACKWARD, FORWARD, NOBODY, OPTIMIZER, OUTSIDE, RECOMPUTE, Attribution, Owner
from distprof.flops.counter import FlopMode
from distprof.flops.likely_work import MAX_WORK
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.patches import ModuleCallPatch, OnError, dataloader_patch
from distprof.model.batch_order import takes_sequences_first
from distprof.probes.batch import shape
from distprof.probes.compiled.counted_code import CompiledCode
from distprof.probes.compiled.eager_choice import EagerChoice
from distprof.probes.counting.dispatch_stack import abandon_mode, in_compiled_call, push_below_user_modes, remove_mode
from distprof.probes.module_stack import ModuleStack, ThreadCallHandler, dense
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.probes.protocol import ModuleCallListener, Region
from distprof.records import TRAINING, Counts, Record

_RECOMPUTED = -2  # the token of a recomputing call, inside backward
_OTHER_THREAD = -3  # the token of a call on another thread

#: The name, among uncounted ops, of forwards on threads that the model's own forward has started.
OTHER_THREADS = "forwards on other threads"


class CountingProbe:
    """Counts one iteration while it is attached.

    The dispatch mode is on inside root forwards, autograd's engine and optimizers; if a whole iteration is counted,
    also between them, where the script computes a loss, for example.  Between them it is off while data is loaded,
    while models are evaluated, and after an exception until the next of them begins: the script may have left its loop.
    """

    def __init__(
        self,
        patch: ModuleCallPatch,
        listener: ModuleCallListener,
        on_error: OnError,
        new_mode: Callable[[Attribution], FlopMode] = FlopMode,
        eager: EagerChoice | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """``whole``: counts whole iterations of a job, with the code between models, backward and optimizers."""
        self._module_patch = patch
        self._whole = whole
        self._new_mode = new_mode
        self._compiled = CompiledCode(self, eager, on_error)
        self._steps = OptimizerSteps(self._optimizer_began, self._optimizer_ended, on_error)
        self._running = ModuleStack(listener)
        self._order = listener.tree.batch_order
        self._input_shape: torch.Size | None = None  # of the running model
        self._data_patch = dataloader_patch(on_error)
        self._ended: list[Record] = []
        self._before_model = FORWARD  # the kind of work after a backward and before the next model
        self._depth = 0  # running root forwards, backward passes and optimizers
        self._abandoned = False
        self._counts_whole = False  # this iteration is counted whole
        self._stays_on = False  # the mode is on between these parts, too
        self._pauses = 0
        self._backward_threads: dict[int, int] = {}  # running backward passes by thread, other than the training thread
        self._mode_is_on = False
        self._threads: set[int] = set()  # other threads that run a module now
        self._input_shape_up = False  # this iteration does not end, and is not counted any more

    @property
    def thread(self) -> int:
        return self._running.thread

    def attach(self) -> None:
        self.begin()
        self._compiled.acquire()
        self._module_patch.open(self)
        self._steps.open()
        if self._whole:
            self._data_patch.open(ThreadCallHandler(self.thread, self._loading_began, self._loading_ended))

    def detach(self) -> None:
        self._drop_mode()
        self._module_patch.close()
        self._steps.close()
        self._data_patch.close()
        self._compiled.release()

    def abandon(self) -> None:
        self._abandoned = True
        self.detach()

    def begin(self) -> None:
        self._drop_mode()
        self._attribution = Attribution()
        self._counts_whole = self._whole and not in_compiled_call()
        if self._whole:
            self._attribution.without_gradient = NOBODY
            self._expect_update()
        self._mode = self._new_mode(self._attribution)
        self._steps.forget()
        self._depth = 0
        self._stays_on = self._counts_whole
        self._calls: dict[int, int] = {}
        self._compiled.begin(self._mode, self._attribution)
        self._running.new_tally()
        self._push_if_wanted()

    def end(self, iteration: int, mode: str) -> None:
        if self._input_shape_up:
            return
        self._settle(OPTIMIZER if mode == TRAINING else FORWARD)
        size = 1 + max([*self._calls, *(owner.row for owner in self._mode.flops)], default=-1)
        work = {
            f"{kind}_{unit}": dense(_of_kind(kind, amounts), size, "<i8")
            for kind in (FORWARD, BACKWARD, RECOMPUTE)
            for unit, amounts in (("macs", self._mode.macs), ("flops", self._mode.flops))
        }
        outside = {
            f"{owner.kind}_{unit}": amount
            for unit, amounts in (("macs", self._mode.macs), ("flops", self._mode.flops))
            for owner, amount in amounts.items()
            if owner.row == OUTSIDE
        }
        self._order.settle(self._calls)
        tally = self._running.tally.work()
        self._ended.append(
            Counts(
                iteration=iteration,
                mode=mode,
                micro_batches=tally.micro_batches,
                batch_size=tally.batch_size,
                samples=tally.samples,
                batch_found=tally.found,
                calls=dense(self._calls, size, "<u4"),
                uncounted=dict(sorted(self._mode.uncounted.items())),
                uncounted_work=dict(sorted(self._mode.uncounted_work.items())),
                outside=dict(sorted(outside.items())),
                device_work=self._mode.by_device.records(),
                compiled=self._compiled.form,
                eager_refused=self._compiled.eager_refused,
                generated=self._compiled.generated,
                **work,
            )
        )

    def read(self, *, wait: bool = False) -> list[Record]:
        ended, self._ended = self._ended, []
        return ended

    def backward_began(self, create_graph: bool) -> None:
        self._running.tally.backward()
        self._settle(FORWARD)
        self._attribution.backward_began(create_graph)
        if get_ident() == self.thread:
            self._enter_part()
        else:
            self._enter_backward_thread()

    def backward_ended(self) -> None:
        on_other_thread = get_ident() in self._backward_threads
        if self._depth or on_other_thread:
            self._attribution.backward_ended()
            if self._whole and not self._running.stack:  # the script's work on gradients is part of the update
                self._attribution.without_gradient = Owner(OPTIMIZER, OUTSIDE)
                self._attribution.after_backward = True
            if on_other_thread:
                self._leave_backward_thread()
            else:
                self._leave_part()

    def _enter_backward_thread(self) -> None:
        """Begins a backward on another thread."""
        thread = get_ident()
        self._backward_threads[thread] = self._backward_threads.get(thread, 0) + 1
        if self._backward_threads[thread] == 1 and not self._pauses and not self._input_shape_up:
            push_below_user_modes(self._mode)

    def _leave_backward_thread(self) -> None:
        thread = get_ident()
        self._backward_threads[thread] -= 1
        if not self._backward_threads[thread]:
            del self._backward_threads[thread]
            remove_mode(self._mode)

    def optimizer_ended(self) -> None:
        self._steps.step_ended()

    def outer_step_began(self) -> None:
        self._steps.outer_began()

    def outer_step_ended(self) -> None:
        self._steps.outer_ended()

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running = self._running
        if torch._C._current_graph_task_id() != -1:  # recompute, on any thread that runs autograd's engine
            row = running.row(module)
            if row >= 0:
                self._attribution.enter(row)
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
                self._model_begins()
            else:
                self._compiled.evaluation_begins()
                self.pause()
        elif takes_sequences_first(module):
            self._order.observe(running.stack[0], self._input_shape, shape(args, kwargs))
        running.stack.append(row)
        if not running.in_evaluation:
            self._attribution.enter(row)
            self._calls[row] = self._calls.get(row, 0) + 1
        return row

    def _enter_other_thread(self) -> int | None:
        """Begins a module on another thread, where the mode is not on and autograd nodes are numbered separately."""
        running, thread = self._running, get_ident()
        if not running.stack or running.in_evaluation or thread in self._threads or not torch.is_grad_enabled():
            return None
        self._threads.add(thread)
        self._mode.uncounted[OTHER_THREADS] = self._mode.uncounted.get(OTHER_THREADS, 0) + 1
        self._mode.uncounted_work[OTHER_THREADS] = MAX_WORK
        return _OTHER_THREAD

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        if token == _OTHER_THREAD:
            self._threads.discard(get_ident())
            return
        if self._abandoned:
            return
        running = self._running
        if not running.in_evaluation:
            self._attribution.leave()
        if token == _RECOMPUTED:
            return
        running.stack.pop()
        if not running.stack:
            if not running.in_evaluation:
                self._leave_part()
            else:
                self.resume()
                self._compiled.evaluation_ended()
            running.leave_root(token)

    def _model_begins(self) -> None:
        if self._whole:
            self._attribution.without_gradient = NOBODY
        self._settle(self._before_model)
        self._before_model = FORWARD
        self._enter_part()

    def _expect_update(self) -> None:
        """Expects the update at the start of the iteration if iterations end with a backward."""
        self._before_model = FORWARD
        if self._running.listener.updates_follow:
            self._before_model = OPTIMIZER
            self._attribution.without_gradient = Owner(OPTIMIZER, OUTSIDE)
            self._attribution.after_backward = True

    def _settle(self, kind: str) -> None:
        """Assigns this kind to the work without gradient since the last backward."""
        if self._attribution.after_backward:
            self._mode.settle(kind)
            self._attribution.after_backward = False

    def _optimizer_began(self) -> None:
        self._running.tally.updating += 1
        if self._attribution.after_backward:
            self._mode.settle(OPTIMIZER)
        self._attribution.optimizer_began()
        self._enter_part()

    def _optimizer_ended(self) -> None:
        self._running.tally.updating -= 1
        self._attribution.optimizer_ended()
        self._leave_part()

    # ---- the mode --------------------------------------------------------------------------------------------------

    def _loading_began(self) -> None:
        self._running.loading_began()
        self.pause()

    def _loading_ended(self) -> None:
        self.resume()
        self._running.loading_ended()

    def pause(self) -> None:
        """Stops counting: what follows is not part of the step."""
        self._pauses += 1
        self._pop_mode()

    def resume(self) -> None:
        self._pauses -= 1
        self._stays_on = self._stays_on and not _raising()
        self._push_if_wanted()

    def _enter_part(self) -> None:
        self._depth += 1
        self._stays_on = self._counts_whole
        self._push_if_wanted()

    def _leave_part(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._stays_on = self._stays_on and not _raising()
            if not self._stays_on:
                self._leave_mode()
        if self._mode.error is not None:
            raise self._mode.error

    def _push_if_wanted(self) -> None:
        """Pushes the mode if it should be on."""
        wanted = (self._stays_on or self._depth > 0) and not (self._pauses or self._input_shape_up or self._abandoned)
        if wanted and not self._mode_is_on and get_ident() == self.thread:
            self._mode_is_on = True  # set before the push: an exception may come from outside in between
            push_below_user_modes(self._mode)

    def _leave_mode(self) -> None:
        if not (self._counts_whole and in_compiled_call()):
            self._pop_mode()

    def _drop_mode(self) -> None:
        if get_ident() == self.thread:
            self._leave_mode()
        if self._mode_is_on:
            self._mode.is_off = True
            self._mode_is_on = False
            abandon_mode(self._mode)
        if self._backward_threads:
            self._backward_threads.clear()
            self._mode.is_off = True
            abandon_mode(self._mode)

    def _pop_mode(self) -> None:
        if self._mode_is_on:
            remove_mode(self._mode)
            self._mode_is_on = False

    # ---- for compiled code -----------------------------------------------------------------------------------------

    @property
    def counts_now(self) -> bool:
        return (
            self._mode_is_on
            and self._depth > 0
            and (get_ident() == self.thread or torch._C._current_graph_task_id() != -1)
        )

    def function_begins(self, region: Region) -> bool:
        running = self._running
        if get_ident() != running.thread or running.in_evaluation:
            return False
        if region.updates:
            self._optimizer_began()
            return True
        row = running.enter_region(region)
        if row is None:
            return False
        if row >= 0:
            self._calls[row] = self._calls.get(row, 0) + 1
        self._attribution.enter(row, made=0 if region.inference else 1)
        self._model_begins()
        return True

    def function_ended(self, region: Region) -> None:
        if region.updates:
            self._optimizer_ended()
        else:
            self._attribution.leave()
            self._leave_part()

    def give_up(self) -> bool:
        self._input_shape_up = self._depth <= 0
        if self._input_shape_up:
            self._leave_mode()
        return self._input_shape_up


def _raising() -> bool:
    """Returns whether an exception is propagating, other than StopIteration, with which data ends."""
    error = sys.exc_info()[1]
    return error is not None and not isinstance(error, StopIteration)


def _of_kind(kind: str, amounts: dict[Owner, int]) -> dict[int, int]:
    """Returns the amounts of one kind of work, by row."""
    return {owner.row: amount for owner, amount in amounts.items() if owner.kind == kind}
