"""The counted step: exclusive work of every module, forward, backward and recomputed, from one iteration that is never
timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from distprof.doors import ModuleDoor, OnError
from distprof.flops.attribution import BACKWARD, FORWARD, OUTSIDE, RECOMPUTE, Attribution, Owner
from distprof.flops.counter import FlopMode
from distprof.probes.batch import BatchTally
from distprof.probes.calls import CallListener, RunningModules, dense
from distprof.probes.optimizer_steps import OptimizerSteps
from distprof.records import Counts, Record

_RECOMPUTED = -2  # the token of a call that is none of the forward's


class CountingProbe:
    """Attached for one iteration; the dispatch mode is on inside root forwards, autograd's engine and optimizers."""

    def __init__(
        self,
        door: ModuleDoor,
        listener: CallListener,
        on_error: OnError,
        new_mode: Callable[[Attribution], FlopMode] = FlopMode,
    ) -> None:
        self._door = door
        self._new_mode = new_mode
        self._steps = OptimizerSteps(self._optimizer_began, self._optimizer_ended, on_error)
        self._running = RunningModules(listener)
        self._ended: list[Record] = []
        self._mode_is_on = False
        self._stance: Any = None

    @property
    def thread(self) -> int:
        return self._running.thread

    def attach(self) -> None:
        self._keep_compiled_code()
        self.begin()
        self._door.open(self)
        self._steps.open()

    def detach(self) -> None:
        self._door.close()
        self._steps.close()
        self._leave_mode()
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    def begin(self) -> None:
        self._attribution = Attribution()
        self._mode = self._new_mode(self._attribution)
        self._steps.forget()
        self._depth = 0  # of root forwards, backward passes and optimizers that have the mode on
        self._calls: dict[int, int] = {}
        self._running.tally = BatchTally()

    def end(self, iteration: int, mode: str) -> None:
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
        self._ended.append(
            Counts(
                iteration=iteration,
                mode=mode,
                micro_batches=self._running.tally.micro_batches,
                samples=self._running.tally.samples,
                calls=dense(self._calls, size, "<u4"),
                uncounted=dict(sorted(self._mode.uncounted.items())),
                outside=dict(sorted(outside.items())),
                device_work=self._mode.by_device.records(),
                **work,
            )
        )

    def read(self, *, wait: bool = False) -> list[Record]:
        ended, self._ended = self._ended, []
        return ended

    def backward_began(self, create_graph: bool) -> None:
        self._running.tally.backward()
        self._attribution.backward_began(create_graph)
        self._on()

    def backward_ended(self) -> None:
        if self._depth:
            self._off()
            self._attribution.backward_ended()

    def optimizer_ended(self) -> None:
        self._steps.step_ended()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running = self._running
        if torch._C._current_graph_task_id() != -1:  # recompute, on whatever thread runs autograd's engine
            row = running.row(module)
            if row >= 0:
                self._attribution.enter(row)
            return _RECOMPUTED if row >= 0 else None
        if get_ident() != running.thread or running.in_evaluation:
            return None
        row = running.row(module)
        if row < 0:
            return None
        if not running.stack and running.enter_root(row, args, kwargs):
            self._on()
        running.stack.append(row)
        if not running.in_evaluation:
            self._attribution.enter(row)
            self._calls[row] = self._calls.get(row, 0) + 1
        return row

    def leave(self, token: int, output: Any) -> None:
        running = self._running
        if not running.in_evaluation:
            self._attribution.leave()
        if token == _RECOMPUTED:
            return
        running.stack.pop()
        if not running.stack:
            if not running.in_evaluation:
                self._off()
            running.leave_root(token)

    def _optimizer_began(self) -> None:
        self._attribution.optimizer_began()
        self._on()

    def _optimizer_ended(self) -> None:
        self._attribution.optimizer_ended()
        self._off()

    def _on(self) -> None:
        self._depth += 1
        if not self._mode_is_on:
            self._mode.__enter__()
            self._mode_is_on = True

    def _off(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._leave_mode()
        if self._mode.error is not None:
            raise self._mode.error

    def _leave_mode(self) -> None:
        """If it is on, and no mode of the user's lies over it: then a call that is still running will leave it."""
        if self._mode_is_on and _get_current_dispatch_mode() is self._mode:
            self._mode_is_on = False
            self._mode.__exit__(None, None, None)

    def _keep_compiled_code(self) -> None:
        """Code that is compiled already stays so under the mode; what would be compiled anew runs eager in this step,
        or dynamo would leave it eager for the rest of the job."""
        if "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("eager_on_recompile")
            self._stance.__enter__()


def _of_kind(kind: str, amounts: dict[Owner, int]) -> dict[int, int]:
    """Amounts of one kind of work, by row."""
    return {owner.row: amount for owner, amount in amounts.items() if owner.kind == kind}
