"""The timed step: self time of every module, forward and backward, and the tokens of experts, on a timeline of turns.

Forward turns are taken at each module's call and return.  Backward turns are taken by pre-hooks on autograd nodes: on
the ``grad_fn`` of a module's output when its backward begins, and on that of its input when it has ended, unless that
node is some other module's output and so begins that one's backward.  Where the input needs no gradient, the gradients
of the module's own parameters end it.  The nodes go with the graph; nothing stays on the user's objects but, for the
length of the window, the hooks on those few parameters.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import nn

from distprof.probes.calls import CallListener, RunningModules
from distprof.probes.phases import BACKWARD, DATA, EVALUATION, FORWARD, PhaseClock
from distprof.timeline import Ledger, Stamps

#: The owner of time outside any module.  Modules own forward time as their row, backward time as ``~row``.
NOBODY = 1 << 40
_MAX_DEPTH = 2


class ModuleTimer:
    """Visitor of the module door during timed steps.  :meth:`begin` starts an iteration; then read the attributes."""

    def __init__(self, listener: CallListener, stamps: Stamps, experts: Collection[int]) -> None:
        self.running = RunningModules(listener)
        self._stamps = stamps
        self._experts = experts
        self._parameter_hooks: dict[int, list[Any]] = {}
        self._nested_backward: list[int] = []  # the owners that each running backward interrupted
        self.begin()

    def begin(self) -> None:
        """A new iteration begins now."""
        self.phases = PhaseClock(self._stamps)
        self.ledger = Ledger(self._stamps, NOBODY)
        self.calls: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.running.tally = type(self.running.tally)()
        self._hooked: set[int] = set()  # sequence numbers of the nodes that carry a hook

    def remove_hooks(self) -> None:
        """Take back the hooks on parameters, the only ones that would outlive the step."""
        for handles in self._parameter_hooks.values():
            for handle in handles:
                handle.remove()
        self._parameter_hooks.clear()

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running = self.running
        if get_ident() != running.thread or running.in_evaluation:
            return None
        row = running.row(module)
        if row < 0:
            return None
        stack = running.stack
        recompute = bool(self._nested_backward)
        if not stack and not recompute and not self._enter_root(row, args, kwargs):
            stack.append(row)
            return row
        stack.append(row)
        if recompute:
            self.ledger.turn(~row)
        else:
            self.calls[row] = self.calls.get(row, 0) + 1
            if row in self._experts:
                self.tokens[row] = self.tokens.get(row, 0) + _token_rows(args or tuple(kwargs.values()))
            self.ledger.turn(row)
        if torch.is_grad_enabled():
            self._hook_input(module, row, args)
        return row

    def leave(self, token: int, output: Any) -> None:
        running = self.running
        stack = running.stack
        stack.pop()
        if running.in_evaluation or (not stack and not self._nested_backward):
            self._leave_root(token, output)
        elif self._nested_backward:
            self.ledger.turn(~stack[-1] if stack else NOBODY)
            self._hook_output(token, output)
        else:
            self.ledger.turn(stack[-1])
            self._hook_output(token, output)

    def backward_began(self) -> None:
        self.running.tally.backward()
        self.phases.enter(BACKWARD)
        self._nested_backward.append(self.ledger.owners[-1])
        self.ledger.turn(NOBODY)

    def backward_ended(self) -> None:
        if self._nested_backward:
            self.phases.leave()
            self.ledger.turn(self._nested_backward.pop())

    def data_began(self) -> None:
        self.phases.enter(DATA)

    def data_ended(self) -> None:
        self.phases.leave()

    def _enter_root(self, row: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        inside = self.running.enter_root(row, args, kwargs)
        self.phases.enter(FORWARD if inside else EVALUATION)
        return inside

    def _leave_root(self, row: int, output: Any) -> None:
        if not self.running.in_evaluation:
            self.ledger.turn(NOBODY)
            self._hook_output(row, output)
        self.phases.leave()
        self.running.leave_root(row)

    def _hook_output(self, row: int, output: Any) -> None:
        """Backward of ``row`` begins at the node that made its output; where that is a child's too, it has a hook."""
        node = output.grad_fn if isinstance(output, torch.Tensor) else _first_node(output)
        if node is not None:
            number = node._sequence_nr()
            if number not in self._hooked:
                self._hooked.add(number)
                node.register_prehook(partial(self._gradient, ~row))

    def _hook_input(self, module: nn.Module, row: int, args: tuple[Any, ...]) -> None:
        """Backward of ``row`` ends where its input was made."""
        node = _first_node(args)
        if node is None:
            self._hook_parameters(module, row)
            return
        number = node._sequence_nr()
        if number not in self._hooked:
            self._hooked.add(number)
            stack = self.running.stack
            node.register_prehook(partial(self._gradient, ~stack[-2] if len(stack) > 1 else NOBODY))

    def _hook_parameters(self, module: nn.Module, row: int) -> None:
        if row not in self._parameter_hooks:
            own = [p for p in module._parameters.values() if p is not None and p.requires_grad and p.is_leaf]
            ended = partial(self._gradient, NOBODY)
            self._parameter_hooks[row] = [p.register_post_accumulate_grad_hook(ended) for p in own]

    def _gradient(self, owner: int, _: Any) -> None:
        """A node's or parameter's gradient has arrived: from here on, the time is ``owner``'s."""
        if self._nested_backward:
            self.ledger.turn(owner)


def _first_node(value: Any, depth: int = 0) -> Any:
    """The ``grad_fn`` of the first tensor in ``value`` that has one."""
    if isinstance(value, torch.Tensor):
        return value.grad_fn
    if depth < _MAX_DEPTH and isinstance(value, (tuple, list, dict)):
        items = value.values() if isinstance(value, dict) else value
        return next((node for item in items if (node := _first_node(item, depth + 1)) is not None), None)
    return None


def _token_rows(args: tuple[Any, ...]) -> int:
    """Tokens in the first tensor of a call: all its dimensions but the last."""
    for value in args:
        if isinstance(value, torch.Tensor) and value.dim():
            return value.numel() // value.shape[-1] if value.shape[-1] else int(value.shape[0])
    return 0
