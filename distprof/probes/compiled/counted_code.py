"""Compiled code in a counted step: the form in which it runs, and the kernels that no dispatch mode sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import get_ident
from typing import Any, Protocol

from distprof.flops.attribution import FORWARD, OPTIMIZER, OUTSIDE, Attribution, Owner
from distprof.flops.counter import FlopMode
from distprof.hooks.patches import OnError
from distprof.probes.compiled.eager_choice import EagerChoice
from distprof.probes.compiled.graphs import CompiledGraphs, Kernels
from distprof.probes.compiled.stance import AS_COMPILED, EAGER, Stance
from distprof.probes.compiled.topk_calls import topk_calls
from distprof.probes.protocol import Region
from distprof.records import Generated


class CompiledCodeListener(Protocol):
    """The counting probe, as compiled code needs it."""

    @property
    def counts_now(self) -> bool:
        """Whether the code that runs now on this thread is counted."""

    def function_begins(self, region: Region) -> bool:
        """Begins compiled code outside of any module.  Returns whether it is counted until ``function_ended``."""

    def function_ended(self, region: Region) -> None: ...

    def give_up(self) -> bool:
        """Stops counting an iteration that does not end.  Returns whether the mode is off now and stays off."""


class _ReadAhead:
    """Reads the sources of graphs for the timed steps, in which it would take time."""

    def graph_begins(self, region: Region, source: str, inputs: Sequence[Any]) -> None:
        topk_calls(source)

    def graph_returned(self, token: Any, outputs: Any) -> None: ...


class CompiledCode:
    """Handles compiled code during one counted iteration."""

    def __init__(self, host: CompiledCodeListener, eager: EagerChoice | None, on_error: OnError) -> None:
        self._host = host
        self._eager = eager
        self._graphs = CompiledGraphs(self, on_error, _ReadAhead())
        self._stance: Stance | None = None
        self._calls: dict[tuple[Owner, str], int] = {}
        self._flops_before: dict[int, int] = {}  # by thread: flops before the running graph
        self._outside: dict[int, Region] = {}  # by thread: the running graph outside of any module

    def acquire(self) -> None:
        """Sets the stance and opens the patches; call it between steps."""
        in_eager_form = self._eager is not None and self._eager.decide()
        self._stance = Stance(EAGER if in_eager_form else AS_COMPILED, self._host.give_up)
        self._stance.acquire()
        self._graphs.open()

    def release(self) -> None:
        self._graphs.close()
        if self._stance is not None:
            self._stance.release()

    def begin(self, mode: FlopMode, attribution: Attribution) -> None:
        self._mode, self._attribution = mode, attribution
        self._calls.clear()

    def model_begins(self) -> None:
        if self._stance is not None:
            self._stance.give_up_if_late()

    def evaluation_begins(self) -> None:
        if self._stance is not None:
            self._stance.pause()

    def evaluation_ended(self) -> None:
        if self._stance is not None:
            self._stance.resume()

    @property
    def form(self) -> str:
        """``compiled`` or ``eager``, as in records.Counts; empty if no compiler was loaded."""
        if self._stance is None or not self._stance.is_relevant:
            return ""
        return "eager" if self._stance.name == EAGER else "compiled"

    @property
    def eager_refused(self) -> str:
        return self._eager.refused if self._eager is not None and self.form else ""

    @property
    def generated(self) -> tuple[Generated, ...]:
        """The kernels that ran and were not counted."""
        calls: Counter[tuple[int, str, bool]] = Counter()
        for (owner, name), number in self._calls.items():
            calls[owner.row, name, owner.kind == OPTIMIZER] += number
        return tuple(Generated(row, name, calls[row, name, steps], steps) for row, name, steps in sorted(calls))

    def graph_begins(self, region: Region) -> None:
        thread = get_ident()
        if not self._host.counts_now or self._attribution.owner() == Owner(FORWARD, OUTSIDE):
            self.model_begins()
            if not self._host.function_begins(region):
                return
            self._outside[thread] = region
        self._flops_before[thread] = self._flops()

    def graph_ended(self, kernels: Kernels) -> None:
        thread = get_ident()
        before = self._flops_before.pop(thread, None)
        if before is None:
            return
        # Library kernels that did not pass torch's dispatcher were replayed by a CUDA graph.
        replayed = kernels.extern if self._flops() == before else {}
        owner = self._attribution.owner()
        for name, calls in (*kernels.generated.items(), *replayed.items()):
            self._calls[owner, name] = self._calls.get((owner, name), 0) + calls
        region = self._outside.pop(thread, None)
        if region is not None:
            self._host.function_ended(region)

    def _flops(self) -> int:
        return sum(self._mode.flops.values())
