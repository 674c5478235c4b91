"""The timed step: self time of every module, forward and backward, and the tokens of experts, on one timeline.

Forward intervals begin at each module's call and return.  Backward intervals begin in pre-hooks on autograd nodes: the
hook on the ``grad_fn`` of a module's output begins its backward; the hook on the ``grad_fn`` of its input ends it,
unless that node is the output of another module, whose backward then begins.  Where the input needs no gradient, the
gradients of the module's own parameters end its backward.  Hooks on nodes go with the graph; only the hooks on those
few parameters stay on the user's objects, until the window ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import nn

from distprof.flops.long_graphs import keep_edges
from distprof.hooks.dynamo import hidden_from_dynamo
from distprof.hooks.patches import OnError
from distprof.probes.experts import ExpertTally
from distprof.probes.module_stack import ModuleStack
from distprof.probes.protocol import ModuleCallListener
from distprof.probes.timing.call_orders import CallOrders
from distprof.probes.timing.module_times import Fields, ModuleTimeSums
from distprof.probes.timing.node_hooks import NOBODY, NodeHooks, PythonNodeHooks
from distprof.probes.timing.phases import BACKWARD, DATA, EVALUATION, FORWARD, PhaseClock
from distprof.probes.timing.timeline import Timeline, Timestamps
from distprof.tensors.nested_tensors import call_tensors

#: Once more intervals than these are kept, they are summed after a backward.
MAX_KEPT = 2_000
_MAX_DEPTH = 2  # of nested lists in an argument


class ModuleTimer:
    """Handles module calls during timed steps.  :meth:`begin` starts an iteration, :meth:`finish` ends it.

    :mod:`distprof.probes.timing.fast_path` does the same for the most common kind of calls.
    """

    def __init__(self, listener: ModuleCallListener, source: Timestamps, tally: ExpertTally, on_error: OnError) -> None:
        self.running = ModuleStack(listener)
        self._on_error = on_error
        self.timeline = Timeline(source, NOBODY)
        self.entered: list[int] = []  # the row of each forward call
        self.stack = self.running.stack  # rows of the running modules; empty in evaluation
        self.experts = tally
        self.interrupted: list[int] = []  # for each running backward, the owner before it
        self.nodes: NodeHooks = PythonNodeHooks(self._new_hook())
        self._orders = CallOrders()
        self.ended: dict[int, list[Any]] = {}
        self.abandoned = False  # some calls were missed: nothing is recorded any more
        self.begin()

    def begin(self) -> None:
        """Begins a new iteration."""
        self.phases = PhaseClock(self.timeline.source)
        self.running.new_tally()
        self.experts.begin()
        self.entered.clear()
        self.nodes.begin()
        self.sums = ModuleTimeSums(self._orders)
        self.timeline.restart(NOBODY)

    def finish(self) -> Callable[[], Fields]:
        """Ends the iteration; returns a function that gives the modules' fields once the timestamps can be read."""
        if not self.timeline.source.immediate:
            return partial(self.sums.fields_with, self.timeline.finish_copy(), self.entered[:])
        fields = self.sums.fields_with(self.timeline.finish(), self.entered)
        return fields.copy

    def remove_hooks(self) -> None:
        """Removes the hooks on parameters, the only ones that would outlive the step."""
        for handles in self.ended.values():
            for handle in handles:
                handle.remove()
        self.ended.clear()

    def abandon(self) -> None:
        """Records nothing more: an exception came from outside, and some calls were missed."""
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
            self.timeline.switch_to(~row)
        else:
            if not stack and not self._enter_root(row, args, kwargs):
                return row
            self.entered.append(row)
            read = self.experts.entering.get(row)
            if read is not None:
                read(args, kwargs)
            self.timeline.switch_to(row)
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
        read = self.experts.leaving.get(token)
        if read is not None and not self.interrupted:
            read(output)
        caller = stack[-1] if stack else NOBODY
        self.timeline.switch_to(~caller if stack and self.interrupted else caller)
        self.hook_output(token, output)
        if not stack and not self.interrupted:
            self._leave_root(token)

    keep_edges = staticmethod(keep_edges)

    @hidden_from_dynamo
    def hook_input(self, row: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Makes the backward of ``row``, which is about to run, end where that of its input begins."""
        node = next(_nodes(args), None) or (next(_nodes(kwargs.values()), None) if kwargs else None)
        if node is not None:
            if torch.is_grad_enabled():
                self.nodes.add(node, self.stack[-1] if self.stack else NOBODY)
            else:
                keep_edges(node)
        elif row not in self.ended and torch.is_grad_enabled():
            self.hook_parameters(module, row)

    @hidden_from_dynamo
    def hook_output(self, row: int, output: Any) -> None:
        """Makes the backward of ``row``, which has run, begin where that of its output does."""
        # Any of several outputs may be the one that is used.  A child's output may be ours too: its hook suffices.
        for node in _nodes(output if type(output) is tuple else (output,)):
            self.nodes.add(node, row)

    def backward_began(self) -> None:
        self.running.tally.backward()
        self.phases.enter(BACKWARD)
        self.interrupted.append(self.timeline.owners[-1])
        self.timeline.switch_to(NOBODY)

    def backward_ended(self) -> None:
        if self.interrupted:
            self.phases.leave()
            self.timeline.switch_to(self.interrupted.pop())
            if len(self.timeline.owners) > MAX_KEPT and not self.interrupted and not self.stack:
                self._sum_kept()

    @property
    def in_backward(self) -> bool:
        return bool(self.interrupted)

    def data_began(self) -> None:
        self.phases.enter(DATA)
        self.running.loading_began()

    def data_ended(self) -> None:
        self.running.loading_ended()
        self.phases.leave()

    def _sum_kept(self) -> None:
        """Sums the intervals so far, after a backward, so that memory is bounded, and little is left to do at the end
        of the iteration: it is inside the optimizer's step, which is short and which the user may be timing.
        """
        if self.timeline.source.immediate:
            self.sums.add(self.timeline.finish(), self.entered)
            self.entered.clear()
            self.timeline.restart(NOBODY)

    def _enter_root(self, row: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        inside = self.running.enter_root(row, args, kwargs)
        self.phases.enter(FORWARD if inside else EVALUATION)
        return inside

    def _leave_root(self, row: int) -> None:
        self.phases.leave()
        self.running.leave_root(row)

    def hook_parameters(self, module: nn.Module, row: int) -> None:
        """Ends the backward of ``row``, whose input needs no gradient, when its own parameters have their gradients."""
        own = [p for p in module._parameters.values() if p is not None and p.requires_grad and p.is_leaf]
        hook = self.nodes.hook(NOBODY)
        self.ended[row] = [p.register_post_accumulate_grad_hook(hook) for p in own]

    def _new_hook(self) -> Callable[[int, Any], None]:
        """Returns the hook of nodes and parameters: when a gradient arrives, it begins an interval of ``owner``."""
        timeline = self.timeline
        add_owner, add_timestamp, now = timeline.owners.append, timeline.timestamps.append, timeline.source.now
        in_backward, failed = self.interrupted, self.hook_failed

        @hidden_from_dynamo
        def hook(owner: int, _: Any) -> None:
            if in_backward:  # a graph may outlive the window
                try:
                    add_timestamp(now())
                    add_owner(owner)
                except BaseException as error:
                    failed(error)

        return hook

    @hidden_from_dynamo
    def hook_failed(self, error: BaseException) -> None:
        """Reports an exception of a hook, which would otherwise reach the user's backward."""
        self.interrupted.clear()
        self._on_error("a hook in backward", error)


def _nodes(values: Iterable[Any]) -> Iterator[Any]:
    """Yields the ``grad_fn`` of every tensor in ``values`` that has one."""
    return (tensor.grad_fn for tensor in call_tensors(values, _MAX_DEPTH) if tensor.grad_fn is not None)
