"""The counted step: exclusive forward work of every module, from one iteration that is never timed."""

from __future__ import annotations

import sys
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from distprof.doors import ModuleDoor
from distprof.flops.counter import FlopMode
from distprof.probes.batch import BatchTally
from distprof.probes.calls import OUTSIDE, CallListener, RunningModules, dense
from distprof.records import Counts, Record


class CountingProbe:
    """Attached for one iteration; the dispatch mode is on inside root forwards only.

    Ops that run in backward (recompute among them) are not forward work and are not counted here.
    """

    def __init__(self, door: ModuleDoor, listener: CallListener) -> None:
        self._door = door
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

    def detach(self) -> None:
        self._door.close()
        self._leave_mode()
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    def begin(self) -> None:
        self._mode = FlopMode()
        self._calls: dict[int, int] = {}
        self._running.tally = BatchTally()

    def end(self, iteration: int, mode: str) -> None:
        size = 1 + max([*self._calls, *self._mode.flops], default=-1)
        flops = dense(self._mode.flops, size, "<i8")
        self._ended.append(
            Counts(
                iteration=iteration,
                mode=mode,
                micro_batches=self._running.tally.micro_batches,
                samples=self._running.tally.samples,
                calls=dense(self._calls, size, "<u4"),
                forward_macs=flops // 2,  # torch's formulas count matmuls, convolutions and attention, 2 flops a MAC
                forward_flops=flops,
                uncounted=dict(sorted(self._mode.uncounted.items())),
            )
        )

    def read(self, *, wait: bool = False) -> list[Record]:
        ended, self._ended = self._ended, []
        return ended

    def backward_began(self) -> None:
        self._running.tally.backward()

    def backward_ended(self) -> None:
        pass

    def optimizer_ended(self) -> None:
        pass

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running = self._running
        if get_ident() != running.thread or running.in_evaluation:
            return None
        if not running.stack and torch._C._current_graph_task_id() != -1:  # recompute, inside backward
            return None
        row = running.row(module)
        if row < 0:
            return None
        counting = bool(running.stack) or running.enter_root(row, args, kwargs)
        if counting and not running.stack:
            self._mode.__enter__()
            self._mode_is_on = True
        running.stack.append(row)
        self._mode.owner = row
        self._calls[row] = self._calls.get(row, 0) + counting
        return row

    def leave(self, token: int, output: Any) -> None:
        stack = self._running.stack
        stack.pop()
        self._mode.owner = stack[-1] if stack else OUTSIDE
        if not stack:
            self._leave_mode()
            if self._mode.error is not None:
                raise self._mode.error
            self._running.leave_root(token)

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
