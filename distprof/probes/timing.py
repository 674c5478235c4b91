"""The timed step: self time of every module, forward and backward, and the tokens of experts, on a timeline of turns.

Forward turns are taken at each module's call and return.  Backward turns are taken by pre-hooks on autograd nodes: on
the ``grad_fn`` of a module's output when its backward begins, and on that of its input when it has ended, unless that
node is some other module's output and so begins that one's backward.  Where the input needs no gradient, the gradients
of the module's own parameters end it.  The nodes go with the graph; nothing stays on the user's objects but, for the
length of the window, the hooks on those few parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import get_ident
from types import MethodType
from typing import Any

import torch
from torch import nn

from distprof.doors import OnError
from distprof.probes.batch import BatchTally
from distprof.probes.calls import CallListener, RunningModules
from distprof.probes.experts import ExpertTally
from distprof.probes.phases import BACKWARD, DATA, EVALUATION, FORWARD, PhaseClock
from distprof.probes.sums import ModuleSums, Orders
from distprof.timeline import Ledger, Stamps, Turns
from distprof.uncompiled import unseen

#: The owner of time outside any module.  Modules own forward time as their row, backward time as ``~row``.
NOBODY = 1 << 40

_is_grad_enabled = torch.is_grad_enabled
_Tensor = torch.Tensor
_Hook = Callable[[torch.Tensor], torch.Tensor | None]  # as torch calls it
#: Carries hooks into nodes, as ``Tensor.register_hook`` does: a tenth of the cost of ``register_prehook``, which makes
#: a handle each time.
_CARRIER = torch.zeros((), device="cpu")
_MAX_DEPTH = 2


class ModuleTimer:
    """Visitor of the module door during timed steps.  :meth:`begin` starts an iteration, :meth:`take` ends it.

    ``enter``, ``leave`` and the hooks run for every module of every timed step: they inline what is said more plainly
    elsewhere (``Ledger.turn``, ``RunningModules.row``), and are what ``make bench`` measures.
    """

    def __init__(self, listener: CallListener, source: Stamps, tally: ExpertTally, on_error: OnError) -> None:
        self.running = RunningModules(listener)
        self._on_error = on_error
        self.ledger = Ledger(source, NOBODY)
        self.entered: list[int] = []  # rows, once for each forward call
        self._row_of = listener.tree.row_of
        self._stack = self.running.stack
        self._now = source.now
        self._own, self._stamp = self.ledger.owners.append, self.ledger.stamps.append
        self.experts = tally
        self._entering, self._leaving = tally.entering, tally.leaving
        self._interrupted: list[int] = []  # by each running backward, the owner before it
        self._hooked: set[int] = set()  # sequence numbers of the nodes that carry a hook
        self._turns = _Turns(self._turn())
        self._orders = Orders()
        self._parameter_hooks: dict[int, list[Any]] = {}
        self.begin()

    def begin(self) -> None:
        """A new iteration begins now."""
        self.phases = PhaseClock(self.ledger.source)
        self.running.tally = BatchTally()
        self.experts.begin()
        self.entered.clear()
        self._hooked.clear()
        self.sums = ModuleSums(self._orders)
        self.ledger.restart(NOBODY)

    def take(self) -> tuple[ModuleSums, Turns | None, list[int]]:
        """The iteration ends now: what is added up, the turns that cannot be yet, and the rows called in those."""
        if not self.ledger.source.immediate:
            return self.sums, self.ledger.take(), self.entered[:]
        if len(self.ledger.owners) > 1:
            self._add_up()
        return self.sums, None, []

    def remove_hooks(self) -> None:
        """Take back the hooks on parameters, the only ones that would outlive the step."""
        for handles in self._parameter_hooks.values():
            for handle in handles:
                handle.remove()
        self._parameter_hooks.clear()

    @unseen
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running, stack = self.running, self._stack
        if get_ident() != running.thread or running.in_evaluation:
            return None
        row = self._row_of.get(id(module), -1)
        if row < 0 and (row := running.row(module)) < 0:
            return None
        if self._interrupted:  # recompute, inside backward
            owner = ~row
        else:
            if not stack and not self._enter_root(row, args, kwargs):
                stack.append(row)
                return row
            owner = row
            self.entered.append(row)
            if row in self._entering:
                self.experts.entered(row, (*args, *kwargs.values()))
        self._stamp(self._now())
        self._own(owner)
        node = args[0].grad_fn if args and type(args[0]) is _Tensor else None
        if node is None and (node := _first_node(args, kwargs)) is None:
            if row not in self._parameter_hooks and _is_grad_enabled():
                self._hook_parameters(module, row)
        elif (number := node._sequence_nr()) not in self._hooked and _is_grad_enabled():
            self._hook(node, number, ~stack[-1] if stack else NOBODY)
        stack.append(row)
        return row

    @unseen
    def leave(self, token: int, output: Any) -> None:
        stack = self._stack
        stack.pop()
        if token in self._leaving and not self._interrupted:
            self.experts.left(token, output)
        if stack:
            self._stamp(self._now())
            self._own(~stack[-1] if self._interrupted else stack[-1])
        elif self.running.in_evaluation:
            self.phases.leave()
            self.running.leave_root(token)
            return
        else:
            self.ledger.turn(NOBODY)
        # Of several outputs any may be the one that is used.  A child's may be ours as well: then its hook says all.
        for node in (output.grad_fn,) if type(output) is _Tensor else _nodes(output):
            if node is not None and (number := node._sequence_nr()) not in self._hooked:
                self._hook(node, number, ~token)
        if not stack and not self._interrupted:
            self.phases.leave()
            self.running.leave_root(token)

    def backward_began(self) -> None:
        self.running.tally.backward()
        self.phases.enter(BACKWARD)
        self._interrupted.append(self.ledger.owners[-1])
        self.ledger.turn(NOBODY)

    def backward_ended(self) -> None:
        if self._interrupted:
            self.phases.leave()
            self.ledger.turn(self._interrupted.pop())
            if not self._interrupted and not self._stack and self.ledger.source.immediate:
                self._add_up()

    @property
    def in_backward(self) -> bool:
        return bool(self._interrupted)

    def data_began(self) -> None:
        self.phases.enter(DATA)

    def data_ended(self) -> None:
        self.phases.leave()

    def _add_up(self) -> None:
        """After each backward, so that many micro-batches take no more memory than one, and so that little is left to
        do when the iteration ends: that is inside the optimizer's step, which is short, and a stopwatch may run there.
        """
        self.sums.add(self.ledger.end(), self.entered)
        self.entered.clear()
        self.ledger.restart(NOBODY)

    def _enter_root(self, row: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        inside = self.running.enter_root(row, args, kwargs)
        self.phases.enter(FORWARD if inside else EVALUATION)
        return inside

    def _hook(self, node: Any, number: int, owner: int) -> None:
        """When the gradient arrives at ``node`` the time is ``owner``'s."""
        self._hooked.add(number)
        _CARRIER._backward_hooks = self._turns[owner]
        node._register_hook_dict(_CARRIER)

    def _hook_parameters(self, module: nn.Module, row: int) -> None:
        """The input needs no gradient: backward of ``row`` ends when its own parameters have theirs."""
        own = [p for p in module._parameters.values() if p is not None and p.requires_grad and p.is_leaf]
        turn = self._turns[NOBODY][0]
        self._parameter_hooks[row] = [p.register_post_accumulate_grad_hook(turn) for p in own]

    def _turn(self) -> Callable[[int, Any], None]:
        """What the hooks of nodes and parameters do: the gradient has arrived, from here on the time is ``owner``'s."""
        own, stamp, now, in_backward, on_error = self._own, self._stamp, self._now, self._interrupted, self._on_error

        @unseen
        def turn(owner: int, _: Any) -> None:
            if in_backward:  # of this window: a graph may live longer
                try:
                    stamp(now())
                    own(owner)
                except Exception as error:  # it would end in the user's backward
                    in_backward.clear()
                    on_error("a hook in backward", error)

        return turn


class _Turns(dict[int, dict[int, _Hook]]):
    """By owner: the hooks, one each, as torch keeps them, of all nodes at which the time becomes its; made when they
    are first asked for.
    """

    def __init__(self, turn: Callable[[int, Any], None]) -> None:
        super().__init__()
        self._turn = turn

    def __missing__(self, owner: int) -> dict[int, _Hook]:
        # Of all that calls ``turn`` with an owner the smallest: when a step comes to it, it has left the caches.
        self[owner] = {0: MethodType(self._turn, owner)}
        return self[owner]


def _first_node(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """That of the first argument that needs a gradient; None without one."""
    return next(_nodes(args), None) or next(_nodes(kwargs), None)


def _nodes(value: Any, depth: int = 0) -> Iterator[Any]:
    """The ``grad_fn`` of every tensor in ``value`` that has one."""
    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None:
            yield value.grad_fn
    elif depth < _MAX_DEPTH and isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _nodes(item, depth + 1)
