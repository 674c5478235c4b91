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


class _Log:
    """Which module was running from which node number on, on one thread; and the modules running now."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.rows: list[int] = []
        self.stack: list[tuple[int, int]] = []  # (row, the graph task in which it was entered)

    def note(self, row: int, made: int = 0) -> None:
        self.numbers.append(_next_number() - made)
        self.rows.append(row)

    def maker(self, number: int) -> int:
        index = bisect_right(self.numbers, number) - 1
        return self.rows[index] if index >= 0 else OUTSIDE


class Attribution:
    """Follows modules and backward passes of all threads during one counted step."""

    def __init__(self) -> None:
        self._logs: dict[int, _Log] = {}
        self._backwards: list[tuple[_Log, bool]] = []  # of each running one: the log of its caller, create_graph
        self._makers: dict[int, _Log] = {}  # graph task -> the log of the thread that made its nodes
        self._creates_graph: dict[int, bool] = {}
        self._optimizers = 0  # that step now, one within the other

    def enter(self, row: int, made: int = 0) -> None:
        """A module begins to run on this thread; ``made``: the number of its nodes that are there already."""
        log = self._log()
        log.stack.append((row, _current_task()))
        log.note(row, made)

    def leave(self) -> None:
        """The module entered last on this thread has ended."""
        log = self._log()
        log.stack.pop()
        log.note(log.stack[-1][0] if log.stack else OUTSIDE)

    def backward_began(self, create_graph: bool) -> None:
        """This thread calls autograd's engine."""
        self._backwards.append((self._log(), create_graph))

    def backward_ended(self) -> None:
        self._backwards.pop()

    def optimizer_began(self) -> None:
        self._optimizers += 1

    def optimizer_ended(self) -> None:
        self._optimizers -= 1

    def owner(self) -> Owner:
        """Of the op that runs now on this thread."""
        task, log = _current_task(), self._log()
        running = log.stack[-1] if log.stack else None
        if task == -1:
            if running is None and self._optimizers and not torch.is_grad_enabled():  # with gradient: its closure
                return Owner(OPTIMIZER, OUTSIDE)
            return Owner(FORWARD, running[0] if running else OUTSIDE)
        if running is not None and running[1] == task:  # a checkpoint runs its modules again
            return Owner(RECOMPUTE, running[0])
        if task not in self._makers:
            self._makers[task], self._creates_graph[task] = self._backwards[-1] if self._backwards else (log, False)
        again = torch.is_grad_enabled() and not self._creates_graph[task]  # a checkpointed function without modules
        return Owner(RECOMPUTE if again else BACKWARD, self._maker(_current_node(), self._makers[task]))

    def is_plumbing(self) -> bool:
        """Whether the op that runs now is autograd's own sum of gradients, and nobody's work."""
        if _current_task() == -1:
            return False
        node = _current_node()
        return node is None or node._sequence_nr() == _ACCUMULATE_GRAD

    def _maker(self, node: Any, log: _Log) -> int:
        number = _ACCUMULATE_GRAD if node is None else node._sequence_nr()
        return OUTSIDE if number == _ACCUMULATE_GRAD else log.maker(number)

    def _log(self) -> _Log:
        thread = get_ident()
        if thread not in self._logs:
            self._logs[thread] = _Log()
        return self._logs[thread]
