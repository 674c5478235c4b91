"""Finds the module that an op belongs to: in forward the running module, in backward the module that made the node.

autograd numbers the nodes of each thread in the order in which they are made.  The number is recorded at every entry
and exit of a module, so the maker of a node is found by bisection, exactly, in whatever order autograd executes nodes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from threading import get_ident
from typing import Any, NamedTuple

import torch

from distprof.flops.grad_accumulation import GradAccumulation

OUTSIDE = -1  # the row of what runs outside any module

FORWARD, BACKWARD, RECOMPUTE = "forward", "backward", "recompute"
OPTIMIZER = "optimizer"  # has no row: an optimizer updates the parameters of all modules

_ACCUMULATE_GRAD = (1 << 64) - 1  # the number of every AccumulateGrad node, which no module makes
_next_number = torch._C._autograd._get_sequence_nr
_current_node = torch._C._current_autograd_node
_current_task = torch._C._current_graph_task_id
_is_grad_enabled = torch.is_grad_enabled
_is_fwd_grad_enabled: Any = torch._C._is_fwd_grad_enabled
_is_inference_mode_enabled = torch.is_inference_mode_enabled


class Owner(NamedTuple):
    """The kind of work, and the module's row, to which an op's work is credited."""

    kind: str
    row: int


_OPTIMIZER = Owner(OPTIMIZER, OUTSIDE)
_FORWARD_OUTSIDE = Owner(FORWARD, OUTSIDE)
NOBODY = Owner("", OUTSIDE)  # work that is no part of the step
#: Work without gradient after a backward: it is the optimizer's if that backward turns out to be the last.
UNSETTLED = Owner("after backward", OUTSIDE)


class _Running(NamedTuple):
    """A module that runs now."""

    owner: Owner  # of its forward
    task: int  # the graph task in which it was entered


class _Log:
    """The node numbers at which each module began to run on one thread, and the modules that run now."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.rows: list[int] = []
        self.stack: list[_Running] = []
        self.entered = False  # whether a module was ever entered
        self.sums = GradAccumulation()
        self._seen = _next_number()  # the makers of all nodes below this number are known

    def note(self, row: int, made: int = 0) -> None:
        """Records that ``row`` makes the nodes from here on, and has made the last ``made`` ones."""
        self._seen = _next_number() - made
        self.numbers.append(self._seen)
        self.rows.append(row)

    def note_running(self) -> None:
        self.note(self.stack[-1].owner.row if self.stack else OUTSIDE)

    def claim(self, row: int) -> None:
        """Records that ``row`` made the nodes since the last call.

        The node of the op that runs now is one of them: a node gets its number before its op is dispatched.
        """
        number = _next_number()
        if number != self._seen and (not self.rows or row != self.rows[-1]):
            self.numbers.append(self._seen)
            self.rows.append(row)
        self._seen = number

    def maker(self, number: int) -> int:
        index = bisect_right(self.numbers, number) - 1
        return self.rows[index] if index >= 0 else OUTSIDE


class _Backward(NamedTuple):
    """A call of autograd's engine."""

    log: _Log  # of the calling thread
    create_graph: bool


def with_gradient() -> bool:
    """Whether the ops that run now belong to a graph.

    They do in the forward of an ``autograd.Function``, also of a compiled one or a checkpoint's.  It runs without
    gradients and without forward-mode gradients, which ``no_grad`` leaves on.
    """
    return _is_grad_enabled() or not (_is_fwd_grad_enabled() or _is_inference_mode_enabled())


class Attribution:
    """Follows the modules and backward passes of all threads during one counted step."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}
        self._latest: _Log | None = None  # of the thread that entered a module last
        self._backwards: list[_Backward] = []  # those that run now
        self._unmatched: list[_Backward] = []  # those of which no op was seen yet
        self._makers: dict[int, _Log] = {}  # graph task -> the log of the thread that made its nodes
        self._creates_graph: dict[int, bool] = {}
        self._optimizers: list[int] = []  # the graph tasks in which nested optimizers step now
        #: The owner of ops that run without gradient, in no module and no optimizer.
        self.without_gradient = _FORWARD_OUTSIDE
        self.after_backward = False  # ops in no module, in grad mode, may now process gradients
        self._needs_gradient = False  # whether the last such op needs a gradient

    def enter(self, row: int, made: int = 0) -> None:
        """A module begins to run on this thread; ``made``: the number of nodes that it has made already."""
        log = self._latest = self._log()
        log.stack.append(_Running(Owner(FORWARD, row), _current_task()))
        log.note(row, made)
        log.entered = True

    def leave(self) -> None:
        """The module entered last on this thread has ended."""
        log = self._log()
        log.stack.pop()
        log.note_running()

    def backward_began(self, create_graph: bool) -> None:
        """This thread calls autograd's engine, for its own nodes, or for those of the thread that ran a module last."""
        log = self._log()
        log.note_running()
        if not log.entered and self._latest is not None:
            log = self._latest
        backward = _Backward(log, create_graph)
        self._backwards.append(backward)
        self._unmatched.append(backward)

    def backward_ended(self) -> None:
        backward = self._backwards.pop()
        if self._unmatched and self._unmatched[-1] is backward:
            self._unmatched.pop()
        if backward.log is self._log():  # each thread has its own numbers
            backward.log.note_running()
        self._log().sums.forget()

    def optimizer_began(self) -> None:
        self._optimizers.append(_current_task())

    def optimizer_ended(self) -> None:
        if self._optimizers:
            self._optimizers.pop()
        self._needs_gradient = True  # its last op changed a parameter

    def owner(self) -> Owner:
        """Returns the owner of the op that runs now on this thread."""
        task, log = _current_task(), self._log()
        running = log.stack[-1] if log.stack else None
        if task == -1:
            return running.owner if running is not None else self._owner_outside_modules(with_gradient())
        if running is not None and running.task == task:  # a checkpoint runs its modules again
            return Owner(RECOMPUTE, running.owner.row)
        if self._optimizers and self._steps_in(task):
            return _OPTIMIZER
        self._match(task, log)
        row = self._maker(_current_node(), self._makers[task])
        if not _is_grad_enabled():
            return Owner(BACKWARD, row)
        log.claim(row)  # this backward may have a backward itself
        # Without create_graph, it is a checkpointed function that calls no module.
        return Owner(BACKWARD if self._creates_graph[task] else RECOMPUTE, row)

    def _steps_in(self, task: int) -> bool:
        """Whether an optimizer steps within this backward, as its gradients arrive."""
        return bool(self._optimizers) and self._optimizers[-1] == task and not torch.is_grad_enabled()

    def _match(self, task: int, log: _Log) -> None:
        """Matches a graph task with its backward; if none is known (on an engine's thread), ``log`` has its nodes."""
        if task not in self._makers:
            backward = self._unmatched.pop() if self._unmatched else _Backward(log, False)
            self._makers[task], self._creates_graph[task] = backward.log, backward.create_graph

    def _owner_outside_modules(self, has_gradient: bool) -> Owner:
        if has_gradient:  # also in an optimizer's closure
            return UNSETTLED if self.after_backward and not self._needs_gradient else _FORWARD_OUTSIDE
        return _OPTIMIZER if self._optimizers else self.without_gradient

    def ran(self, func: Any, args: Any, kwargs: Any, result: Any, *, is_free: bool = False) -> Owner | None:
        """Records that an op has run; must be called for every op, also for views.

        Returns its owner (nobody if it ``is_free``), or None for autograd's own sum of gradients, which is no module's
        work.
        """
        log = self._log()
        if _current_task() != -1:
            if self._is_engine_sum(log, func, args, result):
                return None
            return NOBODY if is_free else self.owner()
        if not self.after_backward:
            if is_free:
                return NOBODY
            return log.stack[-1].owner if log.stack else self._owner_outside_modules(with_gradient())
        has_gradient = with_gradient()
        if has_gradient or not self._optimizers:
            self._needs_gradient = _need_gradient(args) or bool(kwargs and _need_gradient(kwargs.values()))
        return log.stack[-1].owner if log.stack else self._owner_outside_modules(has_gradient)

    def _is_engine_sum(self, log: _Log, func: Any, args: Any, result: Any) -> bool:
        """Records that an op has run in a backward."""
        task = _current_task()
        if self._optimizers and self._steps_in(task):
            return False
        self._match(task, log)
        if _is_grad_enabled():  # it may have made a node
            self.owner()
        node = _current_node()
        if node is None or node._sequence_nr() == _ACCUMULATE_GRAD:
            return True
        return log.sums.record_op(node, func, args, result)

    def _maker(self, node: Any, log: _Log) -> int:
        number = _ACCUMULATE_GRAD if node is None else node._sequence_nr()
        return OUTSIDE if number == _ACCUMULATE_GRAD else log.maker(number)

    def _log(self) -> _Log:
        thread = get_ident()
        log = self._logs.get(thread)
        if log is None:
            log = self._logs[thread] = _Log()
        return log


def _need_gradient(values: Iterable[Any]) -> bool:
    """Whether any tensor among an op's arguments does."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.requires_grad:
                return True
        elif isinstance(value, (list, tuple)) and _need_gradient(value):
            return True
    return False
