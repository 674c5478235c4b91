"""The timed step: self time of every module, forward and backward, and the tokens of experts, on a timeline of turns.

Forward turns are taken at each module's call and return.  Backward turns are taken by pre-hooks on autograd nodes: on
the ``grad_fn`` of a module's output when its backward begins, and on that of its input when it has ended, unless that
node is some other module's output and so begins that one's backward.  Where the input needs no gradient, the gradients
of the module's own parameters end it.  The nodes go with the graph; nothing stays on the user's objects but, for the
length of the window, the hooks on those few parameters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import get_ident
from types import MethodType
from typing import Any

import torch
from torch import nn

from distprof.flops.long_graphs import FREED_BY_RECURSION, keep_edges
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.patches import OnError
from distprof.probes.experts import ExpertTally
from distprof.probes.module_stack import ModuleStack
from distprof.probes.protocol import ModuleCallListener
from distprof.probes.tensors import tensors
from distprof.probes.timing.module_times import CallOrders, Fields, ModuleTimeSums
from distprof.probes.timing.phases import BACKWARD, DATA, EVALUATION, FORWARD, PhaseClock
from distprof.probes.timing.timeline import MAX_PACKED, Timeline, Timestamps

#: The owner of time outside any module.  Modules own forward time as their row, backward time as ``~row``.
NOBODY = 1 << 40

_Hook = Callable[[torch.Tensor], torch.Tensor | None]  # as torch calls it
#: Carries hooks into nodes, as ``Tensor.register_hook`` does: a tenth of the cost of ``register_prehook``, which makes
#: a handle each time.
CARRIER = torch.zeros((), device="cpu")
_MAX_DEPTH = 2  # of lists in an argument


class ModuleTimer:
    """Visitor of the module door during timed steps.  :meth:`begin` starts an iteration, :meth:`take` ends it.

    :mod:`distprof.probes.timing.fast_path` does the same for the calls that are like most others.
    """

    def __init__(self, listener: ModuleCallListener, source: Timestamps, tally: ExpertTally, on_error: OnError) -> None:
        self.running = ModuleStack(listener)
        self._on_error = on_error
        self.ledger = Timeline(source, NOBODY)
        self.entered: list[int] = []  # rows, once for each forward call
        self.stack = self.running.stack  # rows; empty in evaluation
        self.experts = tally
        self.interrupted: list[int] = []  # by each running backward, the owner before it
        self.hooked = [-1]  # sequence numbers of the nodes that carry a hook, ascending: nearly always one at the end
        self.hooks = _Hooks(self._turn())
        self._orders = CallOrders()
        self.ended: dict[int, list[Any]] = {}
        self.abandoned = False  # what was told of calls is not what happened
        self.begin()

    def begin(self) -> None:
        """A new iteration begins now."""
        self.phases = PhaseClock(self.ledger.source)
        self.running.new_tally()
        self.experts.begin()
        self.entered.clear()
        del self.hooked[1:]
        self.sums = ModuleTimeSums(self._orders)
        self.ledger.restart(NOBODY)

    def take(self) -> Callable[[], Fields]:
        """The iteration ends now: what it tells of the modules, to be called once the stamps can be read."""
        if not self.ledger.source.immediate:
            return partial(self.sums.fields_with, self.ledger.take(), self.entered[:])
        fields = self.sums.fields_with(self.ledger.end(), self.entered)
        return lambda: fields

    def remove_hooks(self) -> None:
        """Take back the hooks on parameters, the only ones that would outlive the step."""
        for handles in self.ended.values():
            for handle in handles:
                handle.remove()
        self.ended.clear()

    def abandon(self) -> None:
        """An exception came from outside, and not all of what happened was told: nothing is, any more."""
        self.abandoned = True
        self.interrupted.clear()

    @hidden_from_dynamo
    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
        running, stack = self.running, self.stack
        if get_ident() != running.thread or running.in_evaluation:
            return None
        row = running.row(module)
        if row < 0:
            return None
        if self.interrupted:  # recompute, inside backward
            self.ledger.turn(~row)
        else:
            if not stack and not self._enter_root(row, args, kwargs):
                return row
            self.entered.append(row)
            if row in self.experts.entering:
                self.experts.entered(row, (*args, *kwargs.values()))
            self.ledger.turn(row)
        self.hook_input(row, module, args, kwargs)
        stack.append(row)
        return row

    @hidden_from_dynamo
    def leave(self, token: int, output: Any) -> None:
        running, stack = self.running, self.stack
        if self.abandoned:
            return
        if running.in_evaluation:
            self._leave_root(token)
            return
        stack.pop()
        if token in self.experts.leaving and not self.interrupted:
            self.experts.left(token, output)
        caller = stack[-1] if stack else NOBODY
        self.ledger.turn(~caller if stack and self.interrupted else caller)
        self.hook_output(token, output)
        if not stack and not self.interrupted:
            self._leave_root(token)

    keep_edges = staticmethod(keep_edges)

    @hidden_from_dynamo
    def hook_input(self, row: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Have the backward of ``row``, which is about to run, end where that of its input begins."""
        node = next(_nodes(args), None) or next(_nodes(kwargs.values()), None)
        if node is not None:
            if torch.is_grad_enabled():
                self._hook(node, self.stack[-1] if self.stack else NOBODY)
            else:
                keep_edges(node)
        elif row not in self.ended and torch.is_grad_enabled():
            self._hook_parameters(module, row)

    @hidden_from_dynamo
    def hook_output(self, row: int, output: Any) -> None:
        """Have the backward of ``row``, which has run, begin where that of its output does."""
        # Of several outputs any may be the one that is used.  A child's may be ours as well: then its hook says all.
        for node in _nodes(output if type(output) is tuple else (output,)):
            self._hook(node, row)

    def backward_began(self) -> None:
        self.running.tally.backward()
        self.phases.enter(BACKWARD)
        self.interrupted.append(self.ledger.owners[-1])
        self.ledger.turn(NOBODY)

    def backward_ended(self) -> None:
        if self.interrupted:
            self.phases.leave()
            self.ledger.turn(self.interrupted.pop())
            if not self.interrupted and not self.stack and self.ledger.source.immediate:
                self._bound()

    @property
    def in_backward(self) -> bool:
        return bool(self.interrupted)

    def data_began(self) -> None:
        self.phases.enter(DATA)
        self.running.loading_began()

    def data_ended(self) -> None:
        self.running.loading_ended()
        self.phases.leave()

    def _bound(self) -> None:
        """After each backward: many micro-batches take no more memory than a few, and leave little to do when the
        iteration ends, which is inside the optimizer's step: that is short, and a stopwatch may run there.
        """
        if len(self.ledger.owners) > MAX_PACKED:
            self.sums.add(self.ledger.end(), self.entered)
            self.entered.clear()
            self.ledger.restart(NOBODY)

    def _enter_root(self, row: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        inside = self.running.enter_root(row, args, kwargs)
        self.phases.enter(FORWARD if inside else EVALUATION)
        return inside

    def _leave_root(self, row: int) -> None:
        self.phases.leave()
        self.running.leave_root(row)

    def _hook(self, node: Any, row: int) -> None:
        """When the gradient arrives at ``node`` it is the backward of ``row`` that begins, if of nobody before."""
        place = bisect_left(self.hooked, number := node._sequence_nr())
        if place < len(self.hooked) and self.hooked[place] == number:
            return
        self.hooked.insert(place, number)
        if len(self.hooked) > FREED_BY_RECURSION:
            keep_edges(node)
        CARRIER._backward_hooks = self.hooks[row]
        node._register_hook_dict(CARRIER)

    def _hook_parameters(self, module: nn.Module, row: int) -> None:
        """The input needs no gradient: backward of ``row`` ends when its own parameters have theirs."""
        own = [p for p in module._parameters.values() if p is not None and p.requires_grad and p.is_leaf]
        turn = self.hooks[NOBODY][0]
        self.ended[row] = [p.register_post_accumulate_grad_hook(turn) for p in own]

    def _turn(self) -> Callable[[int, Any], None]:
        """What the hooks of nodes and parameters do: the gradient has arrived, from here on the time is ``owner``'s."""
        own, stamp, now = self.ledger.owners.append, self.ledger.stamps.append, self.ledger.source.now
        in_backward, failed = self.interrupted, self.hook_failed

        @hidden_from_dynamo
        def turn(owner: int, _: Any) -> None:
            if in_backward:  # of this window: a graph may live longer
                try:
                    stamp(now())
                    own(owner)
                except BaseException as error:
                    failed(error)

        return turn

    @hidden_from_dynamo
    def hook_failed(self, error: BaseException) -> None:
        """Raised, it would end in the user's backward."""
        self.interrupted.clear()
        self._on_error("a hook in backward", error)


class _Hooks(dict[int, dict[int, _Hook]]):
    """By row: the hooks, one each, as torch keeps them, of all nodes at which its backward begins; made when they are
    first asked for.
    """

    def __init__(self, turn: Callable[[int, Any], None]) -> None:
        super().__init__()
        # Of all that calls ``turn`` with an owner the smallest: when a step comes to it, it has left the caches.
        self.make: Callable[[int], _Hook] = partial(MethodType, turn)

    @hidden_from_dynamo
    def __missing__(self, row: int) -> dict[int, _Hook]:
        self[row] = {0: self.make(NOBODY if row == NOBODY else ~row)}
        return self[row]


def _nodes(values: Iterable[Any]) -> Iterator[Any]:
    """The ``grad_fn`` of every tensor in ``values`` that has one."""
    return (tensor.grad_fn for tensor in tensors(values, _MAX_DEPTH) if tensor.grad_fn is not None)
