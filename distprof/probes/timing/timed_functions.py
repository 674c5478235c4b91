"""The time of compiled functions that run a model without calling it: only the runs of their graphs are seen."""

from __future__ import annotations

from threading import get_ident

import torch

from distprof.hooks.patches import OnError
from distprof.probes.compiled.graphs import CompiledGraphs, GraphReader, Kernels
from distprof.probes.protocol import Region
from distprof.probes.timing.module_timer import ModuleTimer
from distprof.probes.timing.node_hooks import NOBODY
from distprof.probes.timing.phases import EVALUATION, FORWARD, OPTIMIZER


class TimedFunctions:
    """Passes the runs of compiled graphs outside of modules, and their backward, to a module timer."""

    def __init__(self, timer: ModuleTimer, on_error: OnError, reader: GraphReader | None = None) -> None:
        self._timer = timer
        self._graphs = CompiledGraphs(self, on_error, reader)
        self._row_of: dict[int, int] = {}  # by the sequence number of the node that runs the backward
        self._in_phase = False
        self._in_backward: set[int] = set()  # threads that run the backward of a graph

    def open(self) -> None:
        self._graphs.open()

    def close(self) -> None:
        self._graphs.close()

    def begin(self) -> None:
        """Begins a new iteration."""
        self._row_of.clear()

    def graph_begins(self, region: Region) -> None:
        timer = self._timer
        if timer.in_backward:
            node = torch._C._current_autograd_node()
            row = None if node is None else self._row_of.get(node._sequence_nr())
            if row is not None:
                self._in_backward.add(get_ident())
                timer.timeline.switch_to(~row)
        elif get_ident() == timer.running.thread and not timer.stack and not timer.running.in_evaluation:
            self._enter(region)

    def graph_ended(self, kernels: Kernels) -> None:
        if get_ident() in self._in_backward:
            self._in_backward.discard(get_ident())
            self._timer.timeline.switch_to(NOBODY)
        elif self._in_phase and get_ident() == self._timer.running.thread:
            self._in_phase = False
            self._timer.timeline.switch_to(NOBODY)
            self._timer.phases.leave()

    def _enter(self, region: Region) -> None:
        row = None if region.updates else self._timer.running.enter_region(region)
        if region.updates:
            self._enter_phase(OPTIMIZER)
        elif row is not None and row >= 0:
            self._enter_phase(FORWARD)
            self._timer.entered.append(row)
            self._timer.timeline.switch_to(row)
            if not region.inference:  # autograd has just made the node
                self._row_of[torch._C._autograd._get_sequence_nr() - 1] = row
        elif row is None and region.parameters:
            self._enter_phase(EVALUATION)

    def _enter_phase(self, phase: str) -> None:
        self._in_phase = True
        self._timer.phases.enter(phase)
