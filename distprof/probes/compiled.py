"""What a counted step does about compiled code: how it runs, and what of it no dispatch shows."""

from __future__ import annotations

from threading import get_ident
from typing import Protocol

from distprof.doors import OnError
from distprof.flops.attribution import Attribution
from distprof.flops.counter import FlopMode
from distprof.probes.headroom import EagerChoice
from distprof.probes.regions import CompiledGraphs, Kernels
from distprof.probes.stance import AS_COMPILED, EAGER, Stance
from distprof.records import Generated


class Host(Protocol):
    """The probe whose mode counts."""

    @property
    def counts_now(self) -> bool:
        """Whether what runs now on this thread is counted."""

    def function_begins(self) -> bool:
        """Compiled code begins to run outside of any module.  True: it is counted until ``function_ended``."""

    def function_ended(self) -> None: ...

    def give_up(self) -> bool:
        """The iteration does not end.  True: the mode is off, and stays off."""


class CompiledCode:
    """Held for the time of one counted iteration."""

    def __init__(self, host: Host, eager: EagerChoice | None, on_error: OnError) -> None:
        self._host = host
        self._eager = eager
        self._graphs = CompiledGraphs(self, on_error)
        self._stance: Stance | None = None
        self._calls: dict[tuple[int, str], int] = {}
        self._flops_before: dict[int, int] = {}  # by thread, of the graph that runs there
        self._outside: set[int] = set()  # threads that run one outside of any module

    def take(self) -> None:
        """Between steps."""
        in_eager_form = self._eager is not None and self._eager.decide()
        self._stance = Stance(EAGER if in_eager_form else AS_COMPILED, self._host.give_up)
        self._stance.take()
        self._graphs.open()

    def leave(self) -> None:
        self._graphs.close()
        if self._stance is not None:
            self._stance.leave()

    def begin(self, mode: FlopMode, attribution: Attribution) -> None:
        self._mode, self._attribution = mode, attribution
        self._calls.clear()

    def model_begins(self) -> None:
        if self._stance is not None:
            self._stance.look_at_the_time()

    def evaluation_begins(self) -> None:
        if self._stance is not None:
            self._stance.pause()

    def evaluation_ended(self) -> None:
        if self._stance is not None:
            self._stance.resume()

    @property
    def form(self) -> str:
        """``compiled`` or ``eager``, as in records.Counts; empty where no compiler was loaded."""
        if self._stance is None or not self._stance.concerns:
            return ""
        return "eager" if self._stance.name == EAGER else "compiled"

    @property
    def eager_refused(self) -> str:
        return self._eager.refused if self._eager is not None and self.form else ""

    @property
    def generated(self) -> tuple[Generated, ...]:
        """Kernels that ran and were not counted."""
        return tuple(Generated(row, name, calls) for (row, name), calls in sorted(self._calls.items()))

    def graph_begins(self) -> None:
        thread = get_ident()
        if not self._host.counts_now:
            self.model_begins()
            if not self._host.function_begins():
                return
            self._outside.add(thread)
        self._flops_before[thread] = self._flops()

    def graph_ended(self, kernels: Kernels) -> None:
        thread = get_ident()
        before = self._flops_before.pop(thread, None)
        if before is None:
            return
        # Libraries' kernels that did not pass torch's dispatcher were replayed by a CUDA graph.
        replayed = kernels.extern if self._flops() == before else {}
        row = self._attribution.owner().row
        for name, calls in (*kernels.generated.items(), *replayed.items()):
            self._calls[row, name] = self._calls.get((row, name), 0) + calls
        if thread in self._outside:
            self._outside.discard(thread)
            self._host.function_ended()

    def _flops(self) -> int:
        return sum(self._mode.flops.values())
