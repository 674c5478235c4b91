"""Whose is an op?  Forward ops are those of the module that runs; backward ops go back to the module that made their
node.

autograd numbers the nodes of each thread in the order in which they are made.  With the number noted at every entry and
exit of a module, the maker of a node is found by bisection, exactly, whatever autograd's order of execution.
"""

from __future__ import annotations

from bisect import bisect_right
from threading import get_ident
from typing import Any, NamedTuple

import torch

from distprof.flops.formulas.rule import tensors
from distprof.flops.grad_accumulation import GradAccumulation

OUTSIDE = -1  # the row of what runs outside any module

FORWARD, BACKWARD, RECOMPUTE = "forward", "backward", "recompute"
OPTIMIZER = "optimizer"  # of no row: an optimizer steps for all of them

_ACCUMULATE_GRAD = (1 << 64) - 1  # the number of every AccumulateGrad node: it was not made by a module
_next_number = torch._C._autograd._get_sequence_nr
_current_node = torch._C._current_autograd_node
_current_task = torch._C._current_graph_task_id


class Owner(NamedTuple):
    """Whom an op's work is credited to."""

    kind: str
    row: int


NOBODY = Owner("", OUTSIDE)  # what is no part of the step
#: What needs no gradient behind a backward, until it is known whether that was the last: then it is the optimizer's.
UNSETTLED = Owner("behind backward", OUTSIDE)


class _Log:
    """Which module was running from which node number on, on one thread; and the modules running now."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.rows: list[int] = []
        self.stack: list[tuple[int, int]] = []  # (row, the graph task in which it was entered)
        self.entered = False  # a module has been
        self.sums = GradAccumulation()
        self._seen = _next_number()  # nodes below it have their maker

    def note(self, row: int, made: int = 0) -> None:
        """From here on ``row`` makes the nodes; it has ``made`` some already."""
        self._seen = _next_number() - made
        self.numbers.append(self._seen)
        self.rows.append(row)

    def note_running(self) -> None:
        self.note(self.stack[-1][0] if self.stack else OUTSIDE)

    def claim(self, row: int) -> None:
        """The nodes made since the last call are ``row``'s, that of the op which runs now among them: an op's node has
        its number before the op is dispatched.
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

    log: _Log  # of the thread that calls
    create_graph: bool


def with_gradient() -> bool:
    """Whether what runs now belongs to a graph.  The forward of an ``autograd.Function`` does, a compiled one's and a
    checkpoint's among them: it runs without gradient, and without forward gradients, which ``no_grad`` leaves on.
    """
    if torch.is_grad_enabled():
        return True
    return not torch._C._is_fwd_grad_enabled() and not torch.is_inference_mode_enabled()


class Attribution:
    """Follows modules and backward passes of all threads during one counted step."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}
        self._latest: _Log | None = None  # of the thread that has entered a module last
        self._backwards: list[_Backward] = []  # that run
        self._unmet: list[_Backward] = []  # those of which no op was seen yet
        self._makers: dict[int, _Log] = {}  # graph task -> the log of the thread that made its nodes
        self._creates_graph: dict[int, bool] = {}
        self._optimizers: list[int] = []  # that step now, one within the other: the graph tasks in which they do
        #: Whose is what runs without gradient, in no module and no optimizer?
        self.without_gradient = Owner(FORWARD, OUTSIDE)
        self.behind_backward = False  # what runs in no module now, in grad mode, may be done to gradients
        self._needs_gradient = False  # the op that ran last, there

    def enter(self, row: int, made: int = 0) -> None:
        """A module begins to run on this thread; ``made``: the number of its nodes that are there already."""
        log = self._latest = self._log()
        log.stack.append((row, _current_task()))
        log.note(row, made)
        log.entered = True

    def leave(self) -> None:
        """The module entered last on this thread has ended."""
        log = self._log()
        log.stack.pop()
        log.note_running()

    def backward_began(self, create_graph: bool) -> None:
        """This thread calls autograd's engine, for nodes of its own or else of the one that ran a module last."""
        log = self._log()
        log.note_running()
        if not log.entered and self._latest is not None:
            log = self._latest
        backward = _Backward(log, create_graph)
        self._backwards.append(backward)
        self._unmet.append(backward)

    def backward_ended(self) -> None:
        backward = self._backwards.pop()
        if self._unmet and self._unmet[-1] is backward:
            self._unmet.pop()
        if backward.log is self._log():  # numbers are of a thread
            backward.log.note_running()
        self._log().sums.forget()

    def optimizer_began(self) -> None:
        self._optimizers.append(_current_task())

    def optimizer_ended(self) -> None:
        if self._optimizers:
            self._optimizers.pop()

    def owner(self) -> Owner:
        """Of the op that runs now on this thread."""
        task, log = _current_task(), self._log()
        running = log.stack[-1] if log.stack else None
        if task == -1:
            return Owner(FORWARD, running[0]) if running is not None else self._in_no_module()
        if running is not None and running[1] == task:  # a checkpoint runs its modules again
            return Owner(RECOMPUTE, running[0])
        if self._steps_in(task):
            return Owner(OPTIMIZER, OUTSIDE)
        self._meet(task, log)
        row = self._maker(_current_node(), self._makers[task])
        if not torch.is_grad_enabled():
            return Owner(BACKWARD, row)
        log.claim(row)  # of this backward there may be a backward
        return Owner(BACKWARD if self._creates_graph[task] else RECOMPUTE, row)  # a checkpointed function of no module

    def _steps_in(self, task: int) -> bool:
        """Whether an optimizer steps as its gradients arrive, in this backward."""
        return bool(self._optimizers) and self._optimizers[-1] == task and not torch.is_grad_enabled()

    def _meet(self, task: int, log: _Log) -> None:
        """Where nobody told of the backward, as on a thread of the engine's own, the caller is that thread."""
        if task not in self._makers:
            backward = self._unmet.pop() if self._unmet else _Backward(log, False)
            self._makers[task], self._creates_graph[task] = backward.log, backward.create_graph

    def _in_no_module(self) -> Owner:
        if with_gradient():  # of an optimizer's closure, too
            return UNSETTLED if self.behind_backward and not self._needs_gradient else Owner(FORWARD, OUTSIDE)
        return Owner(OPTIMIZER, OUTSIDE) if self._optimizers else self.without_gradient

    def ran(self, func: Any, args: Any, result: Any, kwargs: Any = None) -> bool:
        """An op has run; to be told of every one, views too.  Returns whether it was autograd's own sum of gradients,
        and nobody's work.
        """
        task = _current_task()
        if task == -1:
            if self.behind_backward:
                given = tensors((*args, *(kwargs or {}).values()))
                self._needs_gradient = any(tensor.requires_grad for tensor in given)
            return False
        if self._steps_in(task):
            return False
        self._meet(task, self._log())
        if torch.is_grad_enabled():  # it may have made a node
            self.owner()
        node = _current_node()
        if node is None or node._sequence_nr() == _ACCUMULATE_GRAD:
            return True
        return self._log().sums.saw(node, func, args, result)

    def _maker(self, node: Any, log: _Log) -> int:
        number = _ACCUMULATE_GRAD if node is None else node._sequence_nr()
        return OUTSIDE if number == _ACCUMULATE_GRAD else log.maker(number)

    def _log(self) -> _Log:
        thread = get_ident()
        if thread not in self._logs:
            self._logs[thread] = _Log()
        return self._logs[thread]
