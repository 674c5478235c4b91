"""The stack of running modules, shared by the probes that look inside models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import nn

from distprof.flops.attribution import OUTSIDE, with_gradient
from distprof.probes.batch import BatchTally
from distprof.probes.protocol import ModuleCallListener, Region
from distprof.records import TRAINING, Array

_LARGE = 1 << 60  # below this, sums of several arrays fit into 64 bits


class ModuleStack:
    """Tracks the running modules of the thread that trains, and counts the iteration's batches.

    In training, a root forward without gradient is evaluation, and nothing inside it is recorded.  Neither is what runs
    while data is loaded: a transform may be a module, but it is not a model.
    """

    def __init__(self, listener: ModuleCallListener) -> None:
        self.listener = listener
        self.thread = get_ident()
        self.stack: list[int] = []
        self.in_evaluation = False  # or in data loading
        self._loading: list[bool] = []  # for each running wait for a batch, the value before it
        self._tree = listener.tree
        self._find = self._tree.find
        self.new_tally()

    def new_tally(self) -> None:
        self.tally = BatchTally(self._tree.batch_order)

    def row(self, module: nn.Module) -> int:
        """Returns the row of ``module``, which the innermost running module calls."""
        caller = self.stack[-1] if self.stack else OUTSIDE
        row = self._find(module, caller)
        return self.listener.adopt(module, caller) if row is None else row

    def enter_root(self, row: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Begins a root forward; returns whether to look inside.  Call before ``row`` is pushed."""
        self.in_evaluation = self.listener.mode == TRAINING and not with_gradient()
        if not self.in_evaluation and self.is_model(row):
            self.tally.forward(row, args, kwargs)
        return not self.in_evaluation

    def leave_root(self, row: int) -> None:
        """Ends a root forward; call it last, because a new iteration may begin in it."""
        evaluated, self.in_evaluation = self.in_evaluation, False
        if not evaluated and self.is_model(row):
            self.listener.model_ended(torch.is_grad_enabled())

    def loading_began(self) -> None:
        self._loading.append(self.in_evaluation)
        self.tally.loads += not self.stack
        self.in_evaluation = self.in_evaluation or not self.stack  # a model may load data itself

    def loading_ended(self) -> None:
        if self._loading:
            self.in_evaluation = self._loading.pop()

    def enter_region(self, region: Region) -> int | None:
        """Begins compiled code that runs outside of any module.  Returns the row of its model, OUTSIDE if it has none,
        and None for evaluation, which is not recorded.
        """
        if region.inference and self.listener.mode == TRAINING:
            return None
        row = self.listener.model_of(region.parameters)
        if row >= 0:
            self.tally.forward(row, (), {})  # the batch cannot be identified among a graph's inputs
        return row

    def is_model(self, row: int) -> bool:
        """Returns whether the row has parameters; a loss module that the script calls has none."""
        return self._tree.rows[row].total_params > 0


class Loading:
    """Tracks the threads that wait for a batch; a DataLoader worker does nothing else."""

    def __init__(self) -> None:
        self._threads: list[int] = []

    def begin(self, args: tuple[Any, ...]) -> None:
        self._threads.append(get_ident())

    def end(self) -> None:
        if get_ident() in self._threads:
            self._threads.remove(get_ident())

    @property
    def here(self) -> bool:
        return get_ident() in self._threads or torch.utils.data.get_worker_info() is not None


class ThreadCallHandler:
    """Calls two functions at the begin and end of patched calls on one thread; ignores other threads."""

    def __init__(self, thread: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._thread = thread
        self._begin = begin
        self._end = end

    def begin(self, args: tuple[Any, ...]) -> None:
        if get_ident() == self._thread:
            self._begin()

    def end(self) -> None:
        if get_ident() == self._thread:
            self._end()


def dense(values: Mapping[int, int], size: int, dtype: str) -> Array:
    """Returns values by row as an array of the first ``size`` rows; other rows (:data:`OUTSIDE`) are left out.

    Values beyond 64 bits stay Python ints: they occur where nothing runs (meta device).
    """
    array: Array = np.zeros(size, dtype if sum(values.values()) < _LARGE else object)
    for row, value in values.items():
        if 0 <= row < size:
            array[row] = value
    return array
